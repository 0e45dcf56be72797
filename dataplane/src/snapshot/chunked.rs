//! A persistent vector: changing one element copies one chunk and shares the rest.

use std::sync::Arc;

const CHUNK: usize = 256;

/// A chunk begins on a cache line. The count of the versions that share it, which every publication changes, is then on the line
/// before, and workers need not read their part of the chunk anew.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Chunk<T>([T; CHUNK]);

/// A vector in chunks of 256 elements, each shared between the versions that did not change it.
#[derive(Debug, Clone)]
pub struct Chunked<T> {
    chunks: Box<[Arc<Chunk<T>>]>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Box::default() }
    }
}

impl<T: Clone + Default> Chunked<T> {
    /// The element at `index`; `None` past the end.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        Some(&self.chunks.get(index / CHUNK)?.0[index % CHUNK])
    }

    /// Puts `value` at `index`, growing with default elements where needed. Copies the chunk when another version shares it.
    pub fn set(&mut self, index: usize, value: T) {
        let chunk = index / CHUNK;
        if chunk >= self.chunks.len() {
            let empty = Arc::new(Chunk(std::array::from_fn(|_| T::default())));
            let mut chunks = std::mem::take(&mut self.chunks).into_vec();
            chunks.resize(chunk + 1, empty);
            self.chunks = chunks.into_boxed_slice();
        }
        Arc::make_mut(&mut self.chunks[chunk]).0[index % CHUNK] = value;
    }

    /// All elements, up to the end of the last chunk.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.0.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_older_versions_alone_and_shares_the_rest() {
        let mut first = Chunked::<u32>::default();
        first.set(700, 7);
        let mut second = first.clone();
        second.set(0, 1);
        assert_eq!((first.get(0), second.get(0), second.get(700)), (Some(&0), Some(&1), Some(&7)));
        assert!(
            Arc::ptr_eq(&first.chunks[2], &second.chunks[2])
                && !Arc::ptr_eq(&first.chunks[0], &second.chunks[0])
        );
        assert_eq!(first.get(768), None);
    }

    #[test]
    fn a_chunk_shares_no_line_with_its_count_nor_with_others() {
        assert_eq!((size_of::<Chunk<u8>>(), align_of::<Chunk<u8>>()), (256, 64));
        assert_eq!(size_of::<Chunk<[u8; 3]>>() % 64, 0);
    }
}
