//! How the two ways of convolution with fewer products ([`super::winograd`] and [`super::strided`]) cut their results into
//! tiles, tiles into tasks, and where the parts of a task lie in memory.

use crate::cpu::blocks::for_each_block;
use crate::cpu::tile::panel_width;
use rayon::prelude::*;

/// Floats between the planes of positions beyond what they hold: planes at a distance of a power of two would fall
/// on the same lines of the first-level cache.
pub(super) const APART: usize = 16;

/// The geometry of a convolution by 3x3 filters, or of its input gradient, in square tiles of results.
pub(super) struct Tiling {
    /// Result rows, and columns, of a tile.
    pub(super) side: usize,
    /// Extents of what is read and of the result.
    pub(super) source: [usize; 2],
    pub(super) result: [usize; 2],
    /// Channels of what is read and of the result.
    pub(super) cin: usize,
    pub(super) cout: usize,
    /// Whether it is an input gradient.
    pub(super) transposed: bool,
    /// Tiles of an example, down and across.
    pub(super) tiles: [usize; 2],
    /// Examples of a task, and rows of tiles, all of them unless a task has one example.
    pub(super) examples: usize,
    pub(super) band: usize,
}

impl Tiling {
    /// Tiles of an example.
    pub(super) fn each(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Makes a task of about `tiles` tiles: of several examples, at most so many, or of some rows of one.
    pub(super) fn cut(&mut self, tiles: usize, examples: usize) {
        (self.examples, self.band) = (1, self.tiles[0]);
        if self.each() <= tiles {
            self.examples = (tiles / self.each()).clamp(1, examples);
        } else {
            self.band = (tiles / self.tiles[1]).max(1);
        }
    }

    /// Tiles of a full task.
    pub(super) fn count(&self) -> usize {
        self.examples * self.band * self.tiles[1]
    }

    /// Whether a task has whole examples.
    pub(super) fn has_whole_examples(&self) -> bool {
        self.band == self.tiles[0]
    }

    /// Panels of the result's channels.
    pub(super) fn panels(&self) -> usize {
        self.cout.div_ceil(panel_width::<f32>())
    }

    /// Floats from one plane of the inputs of `count` tiles to the next.
    pub(super) fn plane(&self, count: usize) -> usize {
        count * self.cin + APART
    }

    /// The same of products in one panel's channels.
    pub(super) fn result_plane(&self, count: usize) -> usize {
        count * panel_width::<f32>() + APART
    }

    /// Floats of an example of the source.
    pub(super) fn source_image(&self) -> usize {
        self.source[0] * self.source[1] * self.cin
    }

    /// Floats of a row of the result.
    pub(super) fn result_row(&self) -> usize {
        self.result[1] * self.cout
    }

    /// Floats of an example of the result.
    pub(super) fn result_image(&self) -> usize {
        self.result[0] * self.result_row()
    }

    /// Floats of a full task's block of results.
    pub(super) fn block(&self) -> usize {
        self.examples * self.result[0].min(self.band * self.side) * self.result_row()
    }

    /// Calls `body(example, band, at, block)` for the blocks of results `out`, one a task: its first example, which of
    /// that one's bands it is, and where the block begins.
    pub(super) fn in_blocks<T: Send>(
        &self,
        out: &mut [T],
        body: impl Fn(usize, usize, usize, &mut [T]) + Sync,
    ) {
        let image = self.result_image();
        if self.has_whole_examples() {
            let block = self.examples * image;
            for_each_block(out, block, |index, out| body(index * self.examples, 0, index * block, out));
        } else {
            let band = self.band * self.side * self.result_row();
            out.par_chunks_mut(image).enumerate().for_each(|(example, out)| {
                let bands = out.par_chunks_mut(band).enumerate();
                bands.for_each(|(index, block)| body(example, index, example * image + index * band, block));
            });
        }
    }
}
