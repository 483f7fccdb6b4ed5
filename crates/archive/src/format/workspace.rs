//! The buffers of one thread, kept from file to file: allocating and faulting in megabytes for each segment would
//! cost as much as copying it.

use zstd::zstd_safe::{CCtx, DCtx};

use crate::format::codec::CHUNK_BYTES;

/// What a thread keeps between two files. Made as needed; how large it gets is in `ahead/memory.rs`.
#[derive(Default)]
pub(crate) struct Workspace {
    chunk: Vec<u8>,
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
}

/// Its parts, borrowed side by side.
pub(crate) struct Parts<'a> {
    /// [`CHUNK_BYTES`] to read into.
    pub(crate) chunk: &'a mut [u8],
    pub(crate) compressor: &'a mut Option<CCtx<'static>>,
    pub(crate) decompressor: &'a mut Option<DCtx<'static>>,
}

impl Workspace {
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        self.chunk.resize(CHUNK_BYTES, 0);
        Parts {
            chunk: &mut self.chunk,
            compressor: &mut self.compressor,
            decompressor: &mut self.decompressor,
        }
    }

    /// How many bytes it takes up at present.
    pub(crate) fn bytes(&self) -> u64 {
        let compressor = self.compressor.as_ref().map_or(0, CCtx::sizeof);
        let decompressor = self.decompressor.as_ref().map_or(0, DCtx::sizeof);
        (self.chunk.len() + compressor + decompressor) as u64
    }
}
