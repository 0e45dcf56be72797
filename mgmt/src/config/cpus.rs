//! Lists of CPUs as `taskset` and the kernel write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Linux's own bound on CPU numbers in the kernels we know (`NR_CPUS` of distributions).
const CPU_MAX: u16 = 8191;

/// CPU numbers, in the order written. `[2, 3]`, `"2-3,5"` and `2` all mean such a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(pub Vec<u16>);

/// A text is not a list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of CPUs; write [2, 3] or \"2-3,5\" with numbers from 0 to {CPU_MAX}")]
pub struct NotCpus(String);

impl FromStr for CpuList {
    type Err = NotCpus;

    fn from_str(text: &str) -> Result<Self, NotCpus> {
        let bad = || NotCpus(text.to_owned());
        let number =
            |part: &str| part.trim().parse::<u16>().ok().filter(|cpu| *cpu <= CPU_MAX).ok_or_else(bad);
        let mut cpus = Vec::new();
        for part in text.split(',').filter(|_| !text.trim().is_empty()) {
            match part.split_once('-') {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(bad());
                    }
                    cpus.extend(first..=last);
                }
                None => cpus.push(number(part)?),
            }
            if cpus.len() > usize::from(CPU_MAX) {
                return Err(bad());
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut comma = "";
        while let Some((first, _)) = rest.split_first() {
            let run = rest.iter().zip(*first..).take_while(|(cpu, expected)| **cpu == *expected).count();
            let (here, after) = rest.split_at(run.max(1));
            match here {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{first}")?,
            }
            comma = ",";
            rest = after;
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> de::Visitor<'de> for List {
            type Value = CpuList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of CPUs such as [2, 3] or \"2-3\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<CpuList, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, cpu: i64) -> Result<CpuList, E> {
                cpu.to_string().parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, cpu: u64) -> Result<CpuList, E> {
                cpu.to_string().parse().map_err(E::custom)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<CpuList, A::Error> {
                let mut cpus = Vec::new();
                while let Some(cpu) = items.next_element::<u16>()? {
                    if cpu > CPU_MAX || cpus.len() > usize::from(CPU_MAX) {
                        return Err(de::Error::custom(NotCpus(cpu.to_string())));
                    }
                    cpus.push(cpu);
                }
                Ok(CpuList(cpus))
            }
        }
        deserializer.deserialize_any(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written_in_the_kernels_form() {
        for (text, list) in [("2-4,7", vec![2, 3, 4, 7]), ("0", vec![0]), ("", vec![]), ("3,1", vec![3, 1])] {
            let cpus: CpuList = text.parse().unwrap();
            assert_eq!(cpus.0, list);
            assert_eq!(cpus.to_string(), text);
        }
        for text in ["4-2", "-1", "a", "1,,2", "8192", "0-8191,0-8191"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }
}
