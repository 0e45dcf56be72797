//! Which cache lines workers take from each other: caches that never forget, kept coherent as processors keep theirs.
//!
//! A line is taken when a worker reads what another one has written since it last had it, or writes what another one has. What is
//! only read is never taken: each core keeps its copy.

use std::collections::HashMap;

/// Whose cache: a worker's or the management thread's.
pub(super) type Agent = u16;

/// What an instruction does with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A set of agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Holders([u64; 5]);

impl Holders {
    fn only(agent: Agent) -> Self {
        let mut one = Self::default();
        one.insert(agent);
        one
    }

    fn insert(&mut self, agent: Agent) {
        self.0[usize::from(agent) / 64 % 5] |= 1 << (agent % 64);
    }

    fn has(&self, agent: Agent) -> bool {
        self.0[usize::from(agent) / 64 % 5] >> (agent % 64) & 1 == 1
    }
}

/// A line: whoever has it as it is now, and who has written it last.
#[derive(Debug, Clone, Copy)]
struct Line {
    holders: Holders,
    writer: Option<Agent>,
}

/// All lines of the director, of `size` bytes.
#[derive(Debug)]
pub(super) struct Caches {
    lines: HashMap<u64, Line>,
    shift: u32,
}

impl Caches {
    /// With lines of 2^`shift` bytes.
    pub(super) fn new(shift: u32) -> Self {
        Self { lines: HashMap::new(), shift }
    }

    /// Accesses `length` bytes; the first address of each line that was taken from another agent.
    pub(super) fn access(
        &mut self,
        agent: Agent,
        access: Access,
        address: u64,
        length: u64,
        mut taken: impl FnMut(u64),
    ) {
        for number in address >> self.shift..=(address + length.max(1) - 1) >> self.shift {
            if self.line(agent, access, number) {
                taken(number << self.shift);
            }
        }
    }

    /// Whether the line had to be taken.
    fn line(&mut self, agent: Agent, access: Access, number: u64) -> bool {
        let own = Holders::only(agent);
        let fresh = Line { holders: own, writer: (access == Access::Write).then_some(agent) };
        let Some(line) = self.lines.get_mut(&number) else {
            self.lines.insert(number, fresh);
            return false;
        };
        match access {
            Access::Read if line.holders.has(agent) => false,
            Access::Read => {
                line.holders.insert(agent);
                line.writer.is_some_and(|writer| writer != agent)
            }
            Access::Write if line.holders == own => {
                line.writer = Some(agent);
                false
            }
            Access::Write => {
                *line = fresh;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(caches: &mut Caches, steps: &[(Agent, Access, u64)]) -> Vec<bool> {
        let mut all = Vec::new();
        for (agent, access, address) in steps {
            let mut one = false;
            caches.access(*agent, *access, *address, 8, |_| one = true);
            all.push(one);
        }
        all
    }

    #[test]
    fn a_line_is_taken_by_whoever_did_not_write_it_last() {
        use Access::{Read, Write};
        let mut caches = Caches::new(6);
        let steps = [
            (1, Write, 0),
            (1, Read, 8),
            (2, Read, 0),
            (1, Read, 0),
            (1, Write, 0),
            (2, Write, 56),
            (2, Write, 0),
        ];
        assert_eq!(taken(&mut caches, &steps), [false, false, true, false, true, true, false]);
        assert_eq!(taken(&mut caches, &[(1, Read, 64), (2, Read, 64), (300, Read, 64)]), [false; 3]);
        // What one has written everybody else has to fetch.
        let steps = [(300, Write, 64), (1, Read, 64), (2, Read, 64), (1, Read, 64)];
        assert_eq!(taken(&mut caches, &steps), [true, true, true, false]);
    }

    #[test]
    fn what_crosses_lines_is_both() {
        let mut caches = Caches::new(6);
        caches.access(1, Access::Write, 60, 8, |_| panic!("taken"));
        let mut lines = Vec::new();
        caches.access(2, Access::Write, 56, 16, |line| lines.push(line));
        assert_eq!(lines, [0, 64]);
        let mut pairs = Caches::new(7);
        assert_eq!(taken(&mut pairs, &[(1, Access::Write, 0), (2, Access::Write, 64)]), [false, true]);
    }
}
