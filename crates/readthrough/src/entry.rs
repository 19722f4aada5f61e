//! A cached value: in this process, and as bytes in the second tier.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

/// The first byte of an entry. An entry with another layout is a miss.
const FORMAT: u8 = 2;
/// The length without generations of tags: format, kind, epoch, generation, version, time of the load, expiry, number of
/// tags.
pub(crate) const HEADER: usize = 1 + 1 + 8 + 8 + 8 + 4 + 8 + 4;

/// A reader that refreshes a value this many load times before its expiry would need a draw of e^-40.
const LONGEST_REFRESH: f64 = 40.0;

/// The part of an entry before the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The loader found no value.
    pub(crate) absent: bool,
    /// The epoch of the server at the time of the load: see [`crate::remote`].
    pub(crate) epoch: u64,
    /// The generation of the group; a random number for an entry by itself.
    pub(crate) generation: u64,
    /// The version of the value; 0 in namespaces without versions.
    pub(crate) version: u64,
    /// The duration of the load.
    pub(crate) load_micros: u32,
    /// The expiry, in milliseconds since 1970.
    pub(crate) expires_ms: u64,
    /// The generations of the tags from before the load, in the order of the key's tags; `None` without tags. A thin
    /// pointer, because each hit in L1 copies it.
    pub(crate) tags: Option<Arc<Vec<u64>>>,
}

impl Header {
    pub(crate) fn tags(&self) -> &[u64] {
        self.tags.as_ref().map_or(&[], |tags| tags)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let tags = self.tags();
        let mut bytes = Vec::with_capacity(HEADER + tags.len() * 8);
        bytes.extend([FORMAT, u8::from(self.absent)]);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.load_micros.to_be_bytes());
        bytes.extend(self.expires_ms.to_be_bytes());
        bytes.extend(u32::try_from(tags.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(tags.iter().flat_map(|generation| generation.to_be_bytes()));
        bytes
    }

    /// Splits an entry into its header and its value. Returns `None` if the bytes are no entry.
    pub(crate) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[format, absent], rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = number(rest)?;
        let (generation, rest) = number(rest)?;
        let (version, rest) = number(rest)?;
        let (load_micros, rest) = rest.split_first_chunk()?;
        let (expires_ms, rest) = number(rest)?;
        let (tags, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*tags)).ok()?.checked_mul(8)?;
        let (tags, payload) = rest.split_at_checked(length)?;
        let header = Self {
            absent: absent == 1,
            epoch,
            generation,
            version,
            load_micros: u32::from_be_bytes(*load_micros),
            expires_ms,
            tags: shared(tags.chunks_exact(8).filter_map(|tag| Some(number(tag)?.0)).collect()),
        };
        (format == FORMAT && absent <= 1).then_some((header, payload))
    }
}

/// Returns the generations of tags as a header holds them.
pub(crate) fn shared(tags: Vec<u64>) -> Option<Arc<Vec<u64>>> {
    (!tags.is_empty()).then(|| Arc::new(tags))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// A value, or the knowledge that it does not exist. A clone shares the value.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    pub(crate) header: Header,
    pub(crate) value: Option<Arc<V>>,
    /// The size for the bound of L1.
    pub(crate) bytes: usize,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { header: self.header.clone(), value: self.value.clone(), bytes: self.bytes }
    }
}

impl<V> Entry<V> {
    /// Returns whether this reader should reload the value although it has not expired.
    ///
    /// "XFetch" of Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB 2015),
    /// with beta = 1: the longer a load takes and the nearer the expiry, the likelier. About one of many readers reloads
    /// early, and none finds an expired value.
    pub(crate) fn should_refresh(&self, now_ms: u64) -> bool {
        let left = self.header.expires_ms.saturating_sub(now_ms);
        let load_ms = f64::from(self.header.load_micros) / 1_000.0;
        #[expect(clippy::cast_precision_loss, reason = "a time to live in milliseconds is far below 2^52")]
        let left = left as f64;
        // Further away than any draw reaches: no draw is needed.
        if left > load_ms * LONGEST_REFRESH {
            return false;
        }
        let draw: f64 = rand::rng().random_range(f64::MIN_POSITIVE..1.0);
        load_ms * -draw.ln() >= left
    }

    /// Returns the longest time before the expiry at which a reader refreshes the value.
    pub(crate) fn longest_refresh(&self) -> Duration {
        // `should_refresh` counts whole milliseconds.
        Duration::from_micros(self.header.load_micros.into()).mul_f64(LONGEST_REFRESH) + Duration::from_millis(1)
    }

    /// Returns whether the value has expired.
    pub(crate) const fn is_expired(&self, now_ms: u64) -> bool {
        self.header.expires_ms <= now_ms
    }

    /// Returns the remaining time to live, at most `bound`, whatever the clock of another machine said.
    pub(crate) fn left(&self, now_ms: u64, bound: Duration) -> Duration {
        Duration::from_millis(self.header.expires_ms.saturating_sub(now_ms)).min(bound)
    }
}

/// The serialization of the values of a namespace.
pub(crate) struct Codec<V> {
    /// Returns the bytes of a value, or `None` if it can't be encoded.
    pub(crate) encode: fn(&V) -> Option<Vec<u8>>,
    /// Returns the number of these bytes without making them.
    pub(crate) size: fn(&V) -> usize,
    /// Returns the value of these bytes, or `None` if they have another shape.
    pub(crate) decode: fn(&[u8]) -> Option<V>,
}

impl<V> Clone for Codec<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Codec<V> {}

#[cfg(feature = "serde")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> {
    /// MessagePack with field names: compact, and distinguishable from another shape.
    pub(crate) const fn message_pack() -> Self {
        Self {
            encode: |value| rmp_serde::to_vec_named(value).ok(),
            size: |value| {
                let mut count = ByteCount(0);
                // A value that can't be encoded counts as far as it goes.
                let _ = rmp_serde::encode::write_named(&mut count, value);
                count.0
            },
            decode: |bytes| rmp_serde::from_slice(bytes).ok(),
        }
    }
}

/// Counts what is written to it.
#[cfg(feature = "serde")]
struct ByteCount(usize);

#[cfg(feature = "serde")]
impl std::io::Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tags: &[u64]) -> Header {
        Header {
            absent: true,
            epoch: 1,
            generation: 2,
            version: 3,
            load_micros: 4,
            expires_ms: 5,
            tags: shared(tags.to_vec()),
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_nothing_else_is() {
        for tags in [&[][..], &[7], &[8, u64::MAX]] {
            let mut bytes = header(tags).to_bytes();
            let length = bytes.len();
            bytes.extend(b"rest");
            assert_eq!(Header::split(&bytes), Some((header(tags), &b"rest"[..])));
            for shorter in 0..length {
                assert_eq!(Header::split(&bytes[..shorter]), None);
            }
            bytes[0] = 9;
            assert_eq!(Header::split(&bytes), None);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn values_of_another_shape_do_not_decode() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Old {
            name: String,
        }
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        struct New {
            title: String,
        }
        let old = Codec::<Old>::message_pack();
        let value = Old { name: "x".to_owned() };
        let bytes = (old.encode)(&value).unwrap();
        assert_eq!((old.size)(&value), bytes.len());
        assert_eq!((old.decode)(&bytes).unwrap().name, "x");
        assert!((Codec::<New>::message_pack().decode)(&bytes).is_none());
    }

    #[test]
    fn early_refreshes_come_near_the_expiry_and_with_slow_loads() {
        let due = |load_micros: u32, left: u64| {
            let entry = Entry::<()> {
                header: Header { load_micros, expires_ms: 1_000 + left, ..header(&[]) },
                value: None,
                bytes: 0,
            };
            (0..2_000).filter(|_| entry.should_refresh(1_000)).count()
        };
        assert_eq!(due(1_000, 1_000), 0);
        assert_eq!(due(1_000, 0), 2_000);
        // e^-1 of the readers, one load time before the expiry.
        let near = due(100_000, 100);
        assert!((600..900).contains(&near), "{near}");
    }
}
