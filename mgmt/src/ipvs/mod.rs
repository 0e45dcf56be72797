//! The kernel's own way to speak of IPVS: generic netlink, over a socket of ours.
//!
//! Programs written for the kernel (ipvsadm, keepalived, ldirectord) are led to `ipvs.sock` by a preloaded library, one netlink
//! datagram per message. What they ask becomes the same [`Request`](crate::protocol::Request) that the control socket's clients
//! make; what they are answered has the kernel's bytes: its attributes in its order, its error numbers, its checks in their
//! sequence. The texts of `/proc/net/ip_vs*` are served here too.
//!
//! A datagram is read in three steps: `message` finds its requests, `answer` carries each out, `service` and
//! `destination` translate attributes. All of them take hostile bytes.

mod answer;
mod attribute;
mod controller;
mod daemon;
mod destination;
mod errno;
mod file;
mod message;
mod number;
mod operation;
mod outbox;
mod server;
mod service;
mod statistics;

pub use server::{Options, Server};

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod real;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tool_tests;
