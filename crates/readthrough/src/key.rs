//! Names of cached values.

use std::borrow::Cow;
use std::fmt::Display;

/// Identifies a value of a namespace: a single value, or a member of a group that can be invalidated as a whole.
///
/// ```
/// use readthrough::Key;
///
/// let profile = Key::new(42);                           // v1:user:profile:{42}
/// let page = Key::in_group(42, "completed:20:0");       // v1:exercise:list:{42}:completed:20:0
/// assert_ne!(profile, page);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    id: String,
    member: Option<String>,
}

impl Key {
    /// Creates the key of a single value.
    pub fn new(id: impl Display) -> Self {
        Self { id: id.to_string(), member: None }
    }

    /// Creates the key of a member of a group.
    pub fn in_group(group: impl Display, member: impl Display) -> Self {
        Self { id: group.to_string(), member: Some(member.to_string()) }
    }
}

/// The names of one value in this process; in Redis they follow the key prefix.
///
/// The part in braces is the hash tag of Redis Cluster: all names of a group are in one slot, so that one script can use
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) entry: String,
    pub(crate) group: Option<String>,
}

impl Names {
    /// Creates the names. `prefix` is the version and the namespace, such as `v1:user:profile`.
    pub(crate) fn new(prefix: &str, key: &Key) -> Self {
        let id = escape_tag(&key.id);
        // Every read creates these: `concat` allocates once and formats nothing.
        match &key.member {
            None => Self { entry: [prefix, ":{", &id, "}"].concat(), group: None },
            Some(member) => {
                Self { entry: [prefix, ":{", &id, "}:", member].concat(), group: Some(group(prefix, &key.id)) }
            }
        }
    }

    /// Returns the keys of the entry, of its lease and of its group, which all begin with `scope`.
    pub(crate) fn keys(&self, scope: &str) -> Keys {
        let group = self.group.as_ref().map(|group| [scope, group].concat());
        Keys { entry: [scope, &self.entry].concat(), lease: lease(scope, &self.entry), group }
    }
}

/// The keys of an entry in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) entry: String,
    /// The lease, which permits a load to store its value.
    pub(crate) lease: String,
    pub(crate) group: Option<String>,
}

/// Returns the name of a group's generation.
pub(crate) fn group(prefix: &str, id: &str) -> String {
    ["group:", prefix, ":{", &escape_tag(id), "}"].concat()
}

/// Returns the key of an entry's lease.
pub(crate) fn lease(scope: &str, entry: &str) -> String {
    [scope, "lease:", entry].concat()
}

/// Escapes the characters that delimit a hash tag.
fn escape_tag(id: &str) -> Cow<'_, str> {
    if id.contains(['{', '}', '%']) {
        Cow::Owned(id.replace('%', "%25").replace('{', "%7B").replace('}', "%7D"))
    } else {
        Cow::Borrowed(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &Key) -> String {
        Names::new("v1:user:profile", key).entry
    }

    #[test]
    fn names_keep_their_documented_form() {
        assert_eq!(entry(&Key::new(42)), "v1:user:profile:{42}");
        let page = Names::new("v2:exercise:list", &Key::in_group(42, "completed:20:0"));
        assert_eq!(page.entry, "v2:exercise:list:{42}:completed:20:0");
        let keys = page.keys("prod:1f:");
        assert_eq!(keys.entry, "prod:1f:v2:exercise:list:{42}:completed:20:0");
        assert_eq!(keys.lease, "prod:1f:lease:v2:exercise:list:{42}:completed:20:0");
        assert_eq!(keys.group.as_deref(), Some("prod:1f:group:v2:exercise:list:{42}"));
    }

    #[test]
    fn different_keys_have_different_names() {
        let keys = [
            Key::new("a"),
            Key::new("a}:b"),
            Key::in_group("a", "b}"),
            Key::in_group("a", "b"),
            Key::new("a%7D:b"),
            Key::in_group("a", ""),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys[..index].iter().all(|other| entry(other) != entry(key)), "{key:?}");
        }
    }
}
