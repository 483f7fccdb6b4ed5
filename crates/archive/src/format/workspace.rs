//! The buffers of one thread, kept from file to file: allocating and faulting in megabytes for each segment would
//! cost as much as copying it.

use zstd::zstd_safe::DCtx;

use crate::format::codec::CHUNK_BYTES;
use crate::format::frames::Compressor;

/// What a thread keeps between two files. Made as needed; how large it gets is in `ahead/memory.rs`.
#[derive(Default)]
pub(crate) struct Workspace {
    chunk: Vec<u8>,
    compressor: Compressor,
    decompressor: Option<DCtx<'static>>,
}

/// Its parts, borrowed side by side.
pub(crate) struct Parts<'a> {
    /// [`CHUNK_BYTES`] to read into.
    pub(crate) chunk: &'a mut [u8],
    pub(crate) compressor: &'a mut Compressor,
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
        let decompressor = self.decompressor.as_ref().map_or(0, DCtx::sizeof);
        (self.chunk.len() + decompressor) as u64 + self.compressor.bytes()
    }
}
