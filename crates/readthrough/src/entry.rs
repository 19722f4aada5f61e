//! A cached value: in this process, and as bytes in Redis.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte of an entry; another number is another layout, and a miss.
const FORMAT: u8 = 1;
/// Format, kind, epoch, generation, version, time of the load, expiry.
pub(crate) const HEADER: usize = 1 + 1 + 8 + 8 + 8 + 4 + 8;

/// What stands before the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// That the loader found nothing.
    pub(crate) absent: bool,
    /// The state of Redis that the value was stored in: see [`crate::remote`].
    pub(crate) epoch: u64,
    /// The generation of its group; a random number for an entry by itself.
    pub(crate) generation: u64,
    /// The value's own version; 0 where the namespace has none.
    pub(crate) version: u64,
    /// How long its load took.
    pub(crate) load_micros: u32,
    /// When it expires, in milliseconds since 1970.
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

    /// The header and what follows it; `None` when these are no bytes of ours.
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

/// A value that was found, or that there is none.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    pub(crate) header: Header,
    pub(crate) value: Option<Arc<V>>,
    /// Of its encoded form.
    pub(crate) bytes: usize,
}

impl<V> Entry<V> {
    /// Whether this reader should load the value anew although it has not expired.
    ///
    /// "XFetch" of Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB 2015),
    /// with beta = 1: the longer a load takes and the nearer the expiry, the likelier, so that of many
    /// readers about one goes early and none finds the value gone.
    pub(crate) fn due(&self, now_ms: u64) -> bool {
        let left = self.header.expires_ms.saturating_sub(now_ms);
        let load_ms = f64::from(self.header.load_micros) / 1_000.0;
        // Further away than any draw reaches (e^-40): no need for one.
        #[expect(clippy::cast_precision_loss, reason = "a time to live in milliseconds is far below 2^52")]
        let left = left as f64;
        if left > load_ms * 40.0 {
            return false;
        }
        let draw: f64 = rand::rng().random_range(f64::MIN_POSITIVE..1.0);
        load_ms * -draw.ln() >= left
    }

    /// How long it is still good, at most `bound` whatever another machine's clock said.
    pub(crate) fn left(&self, now_ms: u64, bound: Duration) -> Duration {
        Duration::from_millis(self.header.expires_ms.saturating_sub(now_ms)).min(bound)
    }
}

/// MessagePack with field names: compact, and told apart from another shape when it is read.
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
    fn a_header_is_read_as_it_was_written_and_nothing_else_is() {
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
    fn early_refreshes_come_near_the_expiry_and_with_slow_loads() {
        let due = |load_micros: u32, left: u64| {
            let entry = Entry::<()> {
                header: Header { load_micros, expires_ms: 1_000 + left, ..header() },
                value: None,
                bytes: 0,
            };
            (0..2_000).filter(|_| entry.due(1_000)).count()
        };
        assert_eq!(due(1_000, 1_000), 0);
        assert_eq!(due(1_000, 0), 2_000);
        // e^-1 of the readers, one load time before the expiry.
        let near = due(100_000, 100);
        assert!((600..900).contains(&near), "{near}");
    }
}
