//! A page of a data file: the server's own checksum, and the few fields of its header that decide whether that counts.
//!
//! Guarantees the number that the server computes (`pg_checksum_page`, checksum_impl.h, the same in 15 to 19), for pages of any
//! size that a server can be built with. Left to others: which files have pages, and what a wrong one means.

use wal::Lsn;

/// Sums that are computed side by side.
const SUMS: usize = 32;

/// The bytes of a row: a word for each sum.
const ROW_BYTES: usize = SUMS * 4;

const FNV_PRIME: u32 = 16_777_619;

const OFFSETS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Where `pd_checksum` stands (`PageHeaderData`, bufpage.h, 15 to 19): two bytes.
const CHECKSUM_AT: usize = 8;

/// Where `pd_upper` stands: two bytes, which are 0 only in a page that was never initialised (`PageIsNew`).
const UPPER_AT: usize = 14;

/// A page by its bytes; their number is a multiple of 128, as that of every page is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page<'a>(pub(crate) &'a [u8]);

impl Page<'_> {
    fn u16_at(self, at: usize) -> u16 {
        let bytes = self.0.get(at..at + 2).and_then(|it| it.try_into().ok());
        u16::from_ne_bytes(bytes.unwrap_or_default())
    }

    fn u32_at(self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|it| it.try_into().ok());
        u32::from_ne_bytes(bytes.unwrap_or_default())
    }

    /// Whether it was never initialised.
    pub(crate) fn is_new(self) -> bool {
        self.u16_at(UPPER_AT) == 0
    }

    /// Where the record ends that changed it last.
    pub(crate) fn lsn(self) -> Lsn {
        Lsn(u64::from(self.u32_at(0)) << 32 | u64::from(self.u32_at(4)))
    }

    /// The checksum that stands in it.
    pub(crate) fn stored_checksum(self) -> u16 {
        self.u16_at(CHECKSUM_AT)
    }

    /// The checksum that it ought to have as this block of its relation.
    pub(crate) fn checksum(self, block: u32) -> u16 {
        let mut sums = OFFSETS;
        let (first, rest) = self.0.split_at_checked(ROW_BYTES).unwrap_or_default();
        let mut head = [0; ROW_BYTES];
        for (to, from) in head.iter_mut().zip(first) {
            *to = *from;
        }
        // The field itself counts as 0.
        if let Some(field) = head.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
            field.fill(0);
        }
        mix(&mut sums, &head);
        for row in rest.chunks_exact(ROW_BYTES) {
            mix(&mut sums, row);
        }
        for _ in 0..2 {
            mix(&mut sums, &[0; ROW_BYTES]);
        }
        let sum = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
        u16::try_from(sum % 65535 + 1).unwrap_or(u16::MAX)
    }
}

/// Mixes a row into the sums.
#[inline]
fn mix(sums: &mut [u32; SUMS], row: &[u8]) {
    for (sum, word) in sums.iter_mut().zip(row.chunks_exact(4)) {
        let word = u32::from_ne_bytes(word.try_into().unwrap_or_default());
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A page with this LSN and some contents, whose checksum is right for this block.
    pub(crate) fn page(block: u32, lsn: Lsn) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(u64::from(block));
        let mut page: Vec<u8> = (0..8192).map(|_| random.u8(..)).collect();
        page[..4].copy_from_slice(&u32::try_from(lsn.0 >> 32).unwrap().to_ne_bytes());
        page[4..8].copy_from_slice(&u32::try_from(lsn.0 & 0xFFFF_FFFF).unwrap().to_ne_bytes());
        page[UPPER_AT..UPPER_AT + 2].copy_from_slice(&8000_u16.to_ne_bytes());
        let checksum = Page(&page).checksum(block);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_ne_bytes());
        page
    }

    /// The server's own loops, word by word.
    fn plainly(page: &[u8], block: u32) -> u16 {
        let mut page = page.to_vec();
        page[8] = 0;
        page[9] = 0;
        let mut sums = OFFSETS;
        let comp = |sum: u32, value: u32| {
            let tmp = sum ^ value;
            tmp.wrapping_mul(FNV_PRIME) ^ (tmp >> 17)
        };
        for row in 0..page.len() / 128 {
            for (at, sum) in sums.iter_mut().enumerate() {
                let from = row * 128 + at * 4;
                let word = u32::from_ne_bytes(page[from..from + 4].try_into().unwrap());
                *sum = comp(*sum, word);
            }
        }
        for sum in &mut sums {
            *sum = comp(comp(*sum, 0), 0);
        }
        let all = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
        u16::try_from(all % 65535).unwrap() + 1
    }

    #[test]
    fn a_checksum_is_that_of_the_servers_loops_for_any_page_size() {
        let mut random = fastrand::Rng::with_seed(9);
        for bytes in [1024, 8192, 32_768] {
            for _ in 0..20 {
                let page: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
                let block = random.u32(..);
                assert_eq!(Page(&page).checksum(block), plainly(&page, block));
            }
        }
    }

    #[test]
    fn a_page_tells_its_lsn_and_a_flipped_bit_or_another_block_changes_the_checksum() {
        let mut page = page(7, Lsn(0x1_0000_0028));
        let read = Page(&page);
        assert_eq!((read.lsn(), read.is_new()), (Lsn(0x1_0000_0028), false));
        assert_eq!(read.checksum(7), read.stored_checksum());
        assert_ne!(read.checksum(8), read.stored_checksum());
        page[5000] ^= 1;
        assert_ne!(Page(&page).checksum(7), Page(&page).stored_checksum());
        assert!(Page(&[0; 8192]).is_new());
    }
}
