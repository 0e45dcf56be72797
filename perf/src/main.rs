//! Honest measurements of the director.

fn main() {}
