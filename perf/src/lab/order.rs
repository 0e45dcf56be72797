//! Flows in random order: each number equally likely whatever came before, so that no cache can guess.

/// An xorshift generator over flow numbers; the same sequence in every run.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    state: u64,
    flows: u64,
}

impl Order {
    /// Over flows 0 to `flows` - 1, of which there are at most 2^32.
    pub(crate) const fn new(flows: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, flows }
    }

    /// The next flow.
    #[inline(always)]
    pub(crate) const fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 32) * self.flows) >> 32
    }

    /// The next flow as an index.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits")]
    pub(crate) const fn next_index(&mut self) -> usize {
        self.next() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_comes_about_as_often() {
        let mut order = Order::new(10);
        let mut seen = [0; 10];
        for _ in 0..100_000 {
            seen[order.next_index()] += 1;
        }
        assert!(seen.iter().all(|count| (9_500..10_500).contains(count)), "{seen:?}");
    }
}
