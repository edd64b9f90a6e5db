//! Processes that train one network together, each on its share of every batch.
//!
//! Every process holds all weights and the same state. A step's gradients are gathered from all, added in the order of
//! ranks, and the same update is made everywhere, so that each holds the same bits again. Which examples a batch has, and
//! what is drawn for each, does not depend on how many processes there are.

use crate::error::{Error, Result};
use std::ops::Range;

/// The other processes.
pub trait Peers {
    /// The number of this process among them, from 0. Number 0 writes the run's folder.
    fn rank(&self) -> usize;

    /// How many there are, this one included.
    fn count(&self) -> usize;

    /// What every process gives, in the order of ranks; all of them call it, each with as many numbers.
    ///
    /// # Errors
    /// [`Error::Peers`] when one is not heard of.
    fn gather(&self, own: &[f32]) -> Result<Vec<Vec<f32>>>;
}

/// A process's part of the work.
pub(super) struct Share(pub(super) Option<Box<dyn Peers>>);

impl Share {
    /// The rows of a batch of so many images that are this process's: the first ranks take one more where they do not go
    /// up evenly. Empty where there are fewer images than processes.
    pub(super) fn rows(&self, images: usize) -> Range<usize> {
        let Some(peers) = &self.0 else { return 0..images };
        let (rank, count) = (peers.rank(), peers.count());
        let start = |rank: usize| rank * (images / count) + rank.min(images % count);
        start(rank)..start(rank + 1)
    }

    /// Images of a batch of so many that this process runs: its rows, or one image, which then does not count, where it
    /// has none.
    pub(super) fn images(&self, images: usize) -> usize {
        self.rows(images).len().max(1).min(images)
    }

    /// Of what an epoch has for its examples in order, `each` values an example, that of those which this process runs, of
    /// batches of `whole`.
    pub(super) fn own<T: Copy>(&self, all: Vec<T>, whole: usize, each: usize) -> Vec<T> {
        if self.0.is_none() {
            return all;
        }
        let own = |batch: &[T]| {
            let rows = self.rows(batch.len() / each);
            let rows = if rows.is_empty() { 0..1 } else { rows };
            batch[rows.start * each..rows.end * each].to_vec()
        };
        all.chunks(whole * each).flat_map(own).collect()
    }

    /// Refuses a batch that leaves a process without an image.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub(super) fn check(&self, batch: usize) -> Result<()> {
        match &self.0 {
            Some(peers) if batch < peers.count() => {
                let why =
                    format!("there are {} processes, and each takes its share of a batch", peers.count());
                Err(Error::argument("batch", batch, why))
            }
            _ => Ok(()),
        }
    }

    /// Adds up what all processes give, in the order of ranks: the first `weighted` numbers as a mean by how many of the
    /// batch's `images` each has, in f64; the others as they are, in f32 one after the other, as one process adds the parts
    /// of a batch (`micro_batch`). So N processes and one that takes the batch in N parts make the same update to the bit.
    pub(super) fn sum(&self, own: &[f32], weighted: usize, images: usize) -> Result<Vec<f32>> {
        let Some(peers) = &self.0 else { return Ok(own.to_vec()) };
        let all = peers.gather(own)?;
        let count = all.len();
        let share = |rank: usize| images / count + usize::from(rank < images % count);
        let shares: Vec<f64> = (0..count).map(|rank| share(rank) as f64 / images as f64).collect();
        let at = |i: usize| {
            let terms = all.iter().map(|values| values[i]).zip(&shares).filter(|(_, share)| **share > 0.0);
            match i < weighted {
                true => terms.map(|(value, share)| f64::from(value) * share).sum::<f64>() as f32,
                false => terms.fold(0.0, |sum, (value, _)| sum + value),
            }
        };
        Ok((0..own.len()).map(at).collect())
    }

    /// What process 0 says, for all to go by.
    pub(super) fn of_first(&self, own: &[f64]) -> Result<Vec<f64>> {
        let Some(peers) = &self.0 else { return Ok(own.to_vec()) };
        // As two halves of 32 bits, so that all of them arrive.
        let halves = own.iter().flat_map(|x| [(x.to_bits() >> 32) as u32, x.to_bits() as u32]);
        let sent: Vec<f32> = halves.flat_map(|half| [half >> 16, half & 0xffff]).map(|x| x as f32).collect();
        let all = peers.gather(&sent)?;
        let word = |quarter: &[f32]| quarter.iter().fold(0u64, |word, &x| word << 16 | x as u64);
        Ok(all[0].chunks(4).map(|quarter| f64::from_bits(word(quarter))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of so many processes, which all give the same.
    struct Same(usize, usize);

    impl Peers for Same {
        fn rank(&self) -> usize {
            self.0
        }
        fn count(&self) -> usize {
            self.1
        }
        fn gather(&self, own: &[f32]) -> Result<Vec<Vec<f32>>> {
            Ok(vec![own.to_vec(); self.1])
        }
    }

    #[test]
    fn shares_make_up_the_batch() {
        for count in 1..6 {
            for whole in count..12 {
                for images in 1..=whole {
                    let mut rows = Vec::new();
                    for rank in 0..count {
                        let share = Share(Some(Box::new(Same(rank, count))));
                        let own = share.rows(images);
                        assert!(own.len() <= share.rows(whole).len(), "{images} of {whole} by {count}");
                        assert!(share.images(images) >= 1);
                        rows.extend(own);
                    }
                    assert_eq!(rows, (0..images).collect::<Vec<_>>(), "{images} of {whole} by {count}");
                }
            }
        }
    }

    #[test]
    fn means_go_by_images_and_every_bit_arrives() {
        // 3 images: process 0 has 2 of them, process 1 has 1, process 2 one that does not count.
        let share = Share(Some(Box::new(Same(0, 2))));
        assert_eq!(share.sum(&[6.0, 5.0], 1, 3).unwrap(), [6.0, 10.0]);
        let share = Share(Some(Box::new(Same(2, 3))));
        assert_eq!(share.sum(&[6.0, 5.0], 1, 2).unwrap(), [6.0, 10.0]);
        assert_eq!(share.own(vec![7, 8, 9, 1, 2], 3, 1), [9, 1]);
        assert_eq!(share.own(vec!['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], 3, 2), ['e', 'f', 'g', 'h']);
        let values = [0.1, -1e300, f64::MIN_POSITIVE, 0.0, 1.0 / 3.0];
        assert_eq!(share.of_first(&values).unwrap(), values);
        assert!(share.of_first(&[f64::NAN]).unwrap()[0].is_nan());
        assert!(share.check(2).is_err() && share.check(3).is_ok());
    }
}
