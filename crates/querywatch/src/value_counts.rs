//! A compact encoding of the values of a closed slot. Each shape has up to 29 of them.

/// Ascending values and their counts, encoded as LEB128 differences and counts.
#[derive(Debug, Default)]
pub(crate) struct ValueCounts(Box<[u8]>);

impl ValueCounts {
    /// Encodes ascending values.
    pub(crate) fn new(values: impl Iterator<Item = (u64, u32)>) -> Self {
        let (mut bytes, mut last) = (Vec::new(), 0);
        for (value, count) in values {
            encode(&mut bytes, value.saturating_sub(last));
            encode(&mut bytes, count.into());
            last = value;
        }
        Self(bytes.into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        let (mut bytes, mut value) = (self.0.iter().copied(), 0_u64);
        std::iter::from_fn(move || {
            value = value.saturating_add(decode(&mut bytes)?);
            Some((value, u32::try_from(decode(&mut bytes)?).unwrap_or(u32::MAX)))
        })
    }
}

fn encode(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn decode(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_survive_a_round_trip(values in prop::collection::btree_map(any::<u64>(), any::<u32>(), 0..50)) {
            let encoded = ValueCounts::new(values.clone().into_iter());
            prop_assert_eq!(encoded.iter().collect::<BTreeMap<_, _>>(), values);
        }
    }
}
