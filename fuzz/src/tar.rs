//! Archives that have a chance to be taken for archives.

/// Bytes of a block.
const BLOCK: usize = 512;

/// The input with right sums in what a reader takes for headers, and an end mark. What is searched for lies behind the
/// sums, which no search finds by itself.
pub fn mended(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|b| *b == 0) {
            break;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&block[124..135]).ok();
        let size = size.and_then(|text| usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok());
        at = at.saturating_add(size.unwrap_or(0).next_multiple_of(BLOCK));
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    bytes
}
