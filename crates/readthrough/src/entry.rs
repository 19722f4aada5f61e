//! A cached value in this process, and its encoding in Redis.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte of an entry. An entry with another number has another layout and is a miss.
const FORMAT: u8 = 1;
/// Format, kind, epoch, generation, version, time of the load, expiry.
pub(crate) const HEADER: usize = 1 + 1 + 8 + 8 + 8 + 4 + 8;

/// The metadata before the encoded value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether the loader found no value.
    pub(crate) absent: bool,
    /// The epoch of the namespace in which the value was stored: see [`crate::coherence`].
    pub(crate) epoch: u64,
    /// The generation of the group; a random number for a single entry.
    pub(crate) generation: u64,
    /// The version of the value; 0 if the namespace defines none.
    pub(crate) version: u64,
    /// The duration of the load, in microseconds.
    pub(crate) load_micros: u32,
    /// The time of expiry, in milliseconds since 1970.
    pub(crate) expires_ms: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = FORMAT;
        bytes[1] = u8::from(self.absent);
        bytes[2..10].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.generation.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.version.to_be_bytes());
        bytes[26..30].copy_from_slice(&self.load_micros.to_be_bytes());
        bytes[30..38].copy_from_slice(&self.expires_ms.to_be_bytes());
        bytes
    }

    /// Splits bytes into the header and the encoded value; `None` if the layout is unknown.
    pub(crate) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, payload) = bytes.split_at_checked(HEADER)?;
        let eight = |from: usize| Some(u64::from_be_bytes(header[from..from + 8].try_into().ok()?));
        let known = header[0] == FORMAT && header[1] <= 1;
        let header = Self {
            absent: header[1] == 1,
            epoch: eight(2)?,
            generation: eight(10)?,
            version: eight(18)?,
            load_micros: u32::from_be_bytes(header[26..30].try_into().ok()?),
            expires_ms: eight(30)?,
        };
        known.then_some((header, payload))
    }
}

/// A value, or the fact that no value exists.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    pub(crate) header: Header,
    pub(crate) value: Option<Arc<V>>,
    /// The size of the encoded entry.
    pub(crate) bytes: usize,
}

impl<V> Entry<V> {
    /// Decides at random whether this reader refreshes the value before it expires.
    ///
    /// The rule is "XFetch" of Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB
    /// 2015), with beta = 1: the probability grows with the duration of the load and towards the expiry. About one of many
    /// readers refreshes the value.
    pub(crate) fn should_refresh(&self, now_ms: u64) -> bool {
        let left = self.header.expires_ms.saturating_sub(now_ms);
        let load_ms = f64::from(self.header.load_micros) / 1_000.0;
        // Beyond the reach of any draw (e^-40).
        #[expect(clippy::cast_precision_loss, reason = "a time to live in milliseconds is far below 2^52")]
        let left = left as f64;
        if left > load_ms * 40.0 {
            return false;
        }
        let draw: f64 = rand::rng().random_range(f64::MIN_POSITIVE..1.0);
        load_ms * -draw.ln() >= left
    }

    /// Returns the time to the expiry, at most `bound` whatever the clock of another machine says.
    pub(crate) fn remaining(&self, now_ms: u64, bound: Duration) -> Duration {
        Duration::from_millis(self.header.expires_ms.saturating_sub(now_ms)).min(bound)
    }
}

/// Encodes a value as MessagePack with field names, which distinguish it from a value of another shape.
pub(crate) fn encode<V: Serialize>(value: &V) -> Option<Vec<u8>> {
    rmp_serde::to_vec_named(value).ok()
}

pub(crate) fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Option<V> {
    rmp_serde::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { absent: true, epoch: 1, generation: 2, version: 3, load_micros: 4, expires_ms: 5 }
    }

    #[test]
    fn only_encoded_headers_are_decoded() {
        let mut bytes = header().to_bytes().to_vec();
        bytes.extend(b"rest");
        assert_eq!(Header::split(&bytes), Some((header(), &b"rest"[..])));
        assert_eq!(Header::split(&bytes[..HEADER - 1]), None);
        bytes[0] = 9;
        assert_eq!(Header::split(&bytes), None);
    }

    #[test]
    fn values_of_another_shape_do_not_decode() {
        #[derive(Serialize, serde::Deserialize)]
        struct Old {
            name: String,
        }
        #[derive(Debug, Serialize, serde::Deserialize)]
        struct New {
            title: String,
        }
        let bytes = encode(&Old { name: "x".to_owned() }).unwrap();
        assert_eq!(decode::<Old>(&bytes).unwrap().name, "x");
        assert!(decode::<New>(&bytes).is_none());
    }

    #[test]
    fn early_refreshes_depend_on_the_expiry_and_the_load_time() {
        let refreshes = |load_micros: u32, left: u64| {
            let entry = Entry::<()> {
                header: Header { load_micros, expires_ms: 1_000 + left, ..header() },
                value: None,
                bytes: 0,
            };
            (0..2_000).filter(|_| entry.should_refresh(1_000)).count()
        };
        assert_eq!(refreshes(1_000, 1_000), 0);
        assert_eq!(refreshes(1_000, 0), 2_000);
        // e^-1 of the readers, one load time before the expiry.
        let near = refreshes(100_000, 100);
        assert!((600..900).contains(&near), "{near}");
    }
}
