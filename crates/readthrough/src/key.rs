//! The names of cached values.

use std::fmt::Display;
use std::hash::{Hash, Hasher};

/// A part of a key: an id, a group, a member or a tag. Any bytes, of any length.
///
/// Everything that implements [`Display`] converts into it; [`KeyPart::from_bytes`] takes bytes that are not text.
///
/// ```
/// use readthrough::{Key, KeyPart};
///
/// assert_eq!(Key::new("two\nlines"), Key::new(KeyPart::from_bytes(b"two\nlines")));
/// assert_ne!(Key::new("a%0Ab"), Key::new("a\nb"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPart(String);

impl KeyPart {
    /// Creates a part from bytes. Equal bytes give equal parts, whether or not they are text.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self(escape(bytes.as_ref()))
    }

    /// The escaped text of the part.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Display> From<T> for KeyPart {
    fn from(value: T) -> Self {
        let text = value.to_string();
        if !text.is_empty() && text.bytes().all(is_plain) { Self(text) } else { Self(escape(text.as_bytes())) }
    }
}

/// Returns whether a byte stands for itself: printable ASCII except `%` and the braces of a hash tag. A name therefore
/// contains no white space, no control character and, outside its hash tag, no brace.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'{' | b'}')
}

/// Escapes all other bytes as `%` and two hexadecimal digits. No part is empty, since Redis Cluster ignores an empty
/// hash tag: the empty part is a lone `%`, which no other part is.
fn escape(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if bytes.is_empty() {
        return "%".to_owned();
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(DIGITS[usize::from(half & 0xf)]);
            text.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    text
}

/// The key of a value in its namespace. An entry stands by itself, or belongs to a group that is invalidated as a whole;
/// either may carry tags.
///
/// ```
/// use readthrough::Key;
///
/// let profile = Key::new(42);                            // v1:user:profile:{42}
/// let page = Key::in_group(42, "completed:20:0");        // v1:exercise:list:{42}:completed:20:0
/// let article = Key::new(7).tag("author:1").tag("home"); // v1:article:{7}
/// assert_ne!(profile, page);
/// assert_ne!(article, Key::new(7));
/// ```
///
/// A *tag* is a further group of the entry: [`invalidate_group`](crate::Namespace::invalidate_group) invalidates the
/// members of a group and all entries with that tag. A group is the cheaper of the two: its entries share a slot of
/// Redis Cluster and one command. Each tag adds a lookup to every read from the second tier, in the same round trip.
/// The tags of a key are part of what a reader asks for: an entry that was stored with other tags is a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: KeyPart,
    member: Option<KeyPart>,
    /// Sorted, without duplicates.
    tags: Vec<KeyPart>,
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A single write for most keys. No part contains a space.
        state.write(self.id.0.as_bytes());
        for part in self.member.iter().chain(&self.tags) {
            state.write_u8(b' ');
            state.write(part.0.as_bytes());
        }
    }
}

impl Key {
    /// Creates the key of an entry by itself.
    pub fn new(id: impl Into<KeyPart>) -> Self {
        Self { id: id.into(), member: None, tags: Vec::new() }
    }

    /// Creates the key of a member of a group.
    pub fn in_group(group: impl Into<KeyPart>, member: impl Into<KeyPart>) -> Self {
        Self { id: group.into(), member: Some(member.into()), tags: Vec::new() }
    }

    /// Returns the number of bytes of its parts.
    pub(crate) fn length(&self) -> usize {
        [&self.id].into_iter().chain(&self.member).chain(&self.tags).map(|part| part.0.len()).sum()
    }

    /// Adds a tag. The order of the tags and duplicates don't matter.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<KeyPart>) -> Self {
        let tag = tag.into();
        if let Err(place) = self.tags.binary_search(&tag) {
            self.tags.insert(place, tag);
        }
        self
    }
}

/// The hashes of the beginnings of a namespace's names: a read that L1 answers makes no name.
pub(crate) struct PrefixHashes {
    entry: u64,
    group: u64,
}

impl PrefixHashes {
    /// Hashes the beginnings of names, for the prefix of [`Names::new`].
    pub(crate) fn new(prefix: &str) -> Self {
        Self { entry: hash(&[prefix, ":{"]), group: hash(&[GROUP, prefix, ":{"]) }
    }

    /// Returns the hash of the name of an entry.
    pub(crate) fn entry(&self, key: &Key) -> u64 {
        let hash = extend(extend(self.entry, key.id.as_str()), "}");
        key.member.as_ref().map_or(hash, |member| extend(extend(hash, ":"), member.as_str()))
    }

    /// Returns the hash of the name of its group.
    pub(crate) fn group(&self, key: &Key) -> Option<u64> {
        key.member.as_ref().map(|_| self.of_group(&key.id))
    }

    /// Returns the hashes of the names of its tags.
    pub(crate) fn tags(&self, key: &Key) -> impl ExactSizeIterator<Item = u64> {
        key.tags.iter().map(|tag| self.of_group(tag))
    }

    fn of_group(&self, id: &KeyPart) -> u64 {
        extend(extend(self.group, id.as_str()), "}")
    }
}

/// Hashes the text that consists of these parts: FNV-1a (Fowler, Noll, Vo 1991).
pub(crate) fn hash(parts: &[&str]) -> u64 {
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| extend(hash, part))
}

/// Returns the hash of a longer text from the hash of its beginning.
fn extend(hash: u64, part: &str) -> u64 {
    part.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The names of an entry. In the second tier they stand behind a prefix. The part in braces is the hash tag of Redis
/// Cluster: the names of an entry, of its lease and of its group lie in one slot, so that one script can touch them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The name of the entry.
    pub entry: String,
    /// The name of its group.
    pub group: Option<String>,
    /// The groups that the entry belongs to by its tags, in any slots.
    pub tags: Vec<String>,
}

impl Names {
    /// Creates the names of a key. `prefix` consists of version and namespace, such as `v1:user:profile`.
    pub(crate) fn new(prefix: &str, key: &Key) -> Self {
        let id = key.id.as_str();
        let tags = key.tags.iter().map(|tag| group(prefix, tag)).collect();
        // `concat` allocates once, and formats nothing.
        match &key.member {
            None => Self { entry: [prefix, ":{", id, "}"].concat(), group: None, tags },
            Some(member) => Self {
                entry: [prefix, ":{", id, "}:", member.as_str()].concat(),
                group: Some(group(prefix, &key.id)),
                tags,
            },
        }
    }

    /// Returns the names in the order in which reads request their values: the entry, its group, its tags.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        [Some(&self.entry), self.group.as_ref()].into_iter().flatten().chain(&self.tags).map(String::as_str)
    }

    /// Returns the keys of the entry, of its lease and of its group, which begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Keys {
        let group = self.group.as_ref().map(|group| [prefix, group].concat());
        Keys { entry: [prefix, &self.entry].concat(), lease: lease(prefix, &self.entry), group }
    }
}

/// The keys of an entry in the second tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The key of the entry.
    pub entry: String,
    /// The key of the token of the process that may fill the entry.
    pub lease: String,
    /// The key of the generation of the group.
    pub group: Option<String>,
}

/// Returns the keys to remove when a name is invalidated: of an entry and its lease, or of the generation of a group.
/// They lie in one slot.
pub fn keys_of(prefix: &str, name: &str) -> Vec<String> {
    let mut keys = vec![[prefix, name].concat()];
    if !name.starts_with(GROUP) {
        keys.push(lease(prefix, name));
    }
    keys
}

/// The first part of the names of groups.
const GROUP: &str = "group:";

/// Returns the name of a group's generation.
pub(crate) fn group(prefix: &str, id: &KeyPart) -> String {
    [GROUP, prefix, ":{", id.as_str(), "}"].concat()
}

/// Returns the key of an entry's lease.
fn lease(prefix: &str, entry: &str) -> String {
    [prefix, "lease:", entry].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(key: &Key) -> String {
        Names::new("v1:user:profile", key).entry
    }

    #[test]
    fn names_keep_their_documented_form() {
        assert_eq!(entry(&Key::new(42)), "v1:user:profile:{42}");
        let page = Names::new("v2:exercise:list", &Key::in_group(42, "completed:20:0").tag("b").tag("a").tag("b"));
        assert_eq!(page.entry, "v2:exercise:list:{42}:completed:20:0");
        assert_eq!(page.tags, ["group:v2:exercise:list:{a}", "group:v2:exercise:list:{b}"]);
        let keys = page.keys("prod:1f:");
        assert_eq!(keys.entry, "prod:1f:v2:exercise:list:{42}:completed:20:0");
        assert_eq!(keys.lease, "prod:1f:lease:v2:exercise:list:{42}:completed:20:0");
        assert_eq!(keys.group.as_deref(), Some("prod:1f:group:v2:exercise:list:{42}"));
        assert_eq!(entry(&Key::in_group("two\nlines {}", "\0")), "v1:user:profile:{two%0Alines%20%7B%7D}:%00");
        assert_eq!(entry(&Key::new("")), "v1:user:profile:{%}");
    }

    fn parts() -> impl Strategy<Value = Vec<u8>> {
        // Few different bytes, so that equal and nearly equal parts occur.
        prop::collection::vec(prop::sample::select(&b"a:%{}25\n\0\xff"[..]), 0..5)
    }

    proptest! {
        /// Two keys have one name only if they are equal, and no name contains a byte that a text protocol or a hash
        /// tag could stumble over.
        #[test]
        fn different_keys_have_different_names(
            keys in prop::collection::vec((parts(), prop::option::of(parts())), 1..40),
        ) {
            let mut seen: HashMap<String, Key> = HashMap::new();
            for (id, member) in keys {
                let id = KeyPart::from_bytes(id);
                let key = match member {
                    None => Key { id, member: None, tags: Vec::new() },
                    Some(member) => Key { id, member: Some(KeyPart::from_bytes(member)), tags: Vec::new() },
                };
                let (names, hashes) = (Names::new("v1:n", &key), PrefixHashes::new("v1:n"));
                prop_assert_eq!(hashes.entry(&key), hash(&[&names.entry]));
                prop_assert_eq!(hashes.group(&key), names.group.as_ref().map(|group| hash(&[group])));
                for name in [Some(&names.entry), names.group.as_ref()].into_iter().flatten() {
                    prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
                    let tag = name.split('{').nth(1).and_then(|rest| rest.split('}').next());
                    prop_assert!(name.matches('{').count() == 1 && tag.is_some_and(|tag| !tag.is_empty()), "{name}");
                }
                let other = seen.entry(names.entry).or_insert_with(|| key.clone());
                prop_assert_eq!(&*other, &key);
            }
        }

        #[test]
        fn text_and_its_bytes_are_one_part(text in ".{0,12}") {
            prop_assert_eq!(KeyPart::from(&text), KeyPart::from_bytes(&text));
        }
    }
}
