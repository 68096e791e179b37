// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random bytes of the host, for the guest's entropy device.

use cloister_virtio::rng::EntropySource;

/// The host's random number generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostEntropy;

impl EntropySource for HostEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> usize {
        let flags = libc::GRND_NONBLOCK;
        // SAFETY: the call writes at most the given length to the given place, which is exclusively ours.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), flags) };
        usize::try_from(filled).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::HostEntropy;
    use cloister_virtio::rng::EntropySource;

    #[test]
    fn two_fills_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        assert_eq!((HostEntropy.fill(&mut a), HostEntropy.fill(&mut b)), (32, 32));
        assert_ne!(a, b);
    }
}
