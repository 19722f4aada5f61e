//! The libraries, each in the configurations that are measured.

mod amalgam;
mod by_hand;
mod cached;
mod hitbox;
mod memory;
mod readthrough;

use std::time::Duration;

use clap::ValueEnum as _;

use crate::library::Subject;
use crate::load::Load;

/// The tiers that a cache uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiers {
    /// The memory of one process.
    Memory,
    /// Redis.
    Redis,
    /// The process's memory in front of Redis.
    Both,
}

/// The settings with which a library is opened.
struct Setup {
    redis: String,
    tiers: Tiers,
    ttl: Duration,
}

/// The time to live of all entries, which `#[cached]` takes as a literal.
const TTL: Duration = Duration::from_secs(60);

/// A library in one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    Readthrough,
    ReadthroughRedis,
    Amalgam,
    AmalgamStrict,
    AmalgamRedis,
    Hitbox,
    HitboxRedis,
    Cached,
    CachedRedis,
    CachedMemory,
    Moka,
    ByHand,
    /// The limit of a hit in memory.
    BareMoka,
    /// The limit of a hit in Redis.
    BareGet,
    /// readthrough without a single invalidation, in which the checker must find stale reads.
    Control,
}

impl Variant {
    /// Returns the name for tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Readthrough => "readthrough, L1 + Redis",
            Self::ReadthroughRedis => "readthrough, Redis",
            Self::Amalgam => "amalgam, L1 + Redis",
            Self::AmalgamStrict => "amalgam strict, L1 + Redis",
            Self::AmalgamRedis => "amalgam, Redis",
            Self::Hitbox => "hitbox, L1 + Redis",
            Self::HitboxRedis => "hitbox, Redis",
            Self::Cached => "cached, L1 + Redis",
            Self::CachedRedis => "cached, Redis",
            Self::CachedMemory => "cached, memory",
            Self::Moka => "moka try_get_with, memory",
            Self::ByHand => "by hand, Redis",
            Self::BareMoka => "bare moka lookup",
            Self::BareGet => "bare GET and decoding",
            Self::Control => "control: readthrough, no invalidation",
        }
    }

    /// Returns the tiers that reads use.
    pub(crate) const fn tiers(self) -> Tiers {
        match self {
            Self::Readthrough | Self::Amalgam | Self::AmalgamStrict | Self::Hitbox | Self::Cached | Self::Control => {
                Tiers::Both
            }
            Self::ReadthroughRedis
            | Self::AmalgamRedis
            | Self::HitboxRedis
            | Self::CachedRedis
            | Self::ByHand
            | Self::BareGet => Tiers::Redis,
            Self::CachedMemory | Self::Moka | Self::BareMoka => Tiers::Memory,
        }
    }

    /// Returns `true` for a limit or a control, which no service would use.
    pub(crate) const fn is_reference(self) -> bool {
        matches!(self, Self::BareMoka | Self::BareGet | Self::Control)
    }

    /// Returns the variants that a service would use.
    pub(crate) fn compared() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|variant| !variant.is_reference())
    }

    /// Returns the variants in which an application would use each library: with both tiers where it has them.
    pub(crate) fn complete() -> impl Iterator<Item = Self> {
        Self::compared().filter(|variant| {
            !matches!(variant, Self::ReadthroughRedis | Self::AmalgamRedis | Self::HitboxRedis | Self::CachedRedis)
        })
    }

    /// Opens the library, and connects it to Redis.
    ///
    /// # Errors
    /// Returns an error if the library can't connect.
    pub(crate) async fn open(self, redis: &str) -> anyhow::Result<Box<dyn Subject>> {
        let setup = &Setup { redis: redis.to_owned(), tiers: self.tiers(), ttl: TTL };
        Ok(match self {
            Self::Readthrough | Self::ReadthroughRedis => Box::new(readthrough::Readthrough::open(setup).await?),
            Self::Control => Box::new(readthrough::Readthrough::open(setup).await?.without_invalidation()),
            Self::Amalgam | Self::AmalgamRedis => Box::new(amalgam::Amalgam::open(setup, false).await?),
            Self::AmalgamStrict => Box::new(amalgam::Amalgam::open(setup, true).await?),
            Self::Hitbox => hitbox::open_tiers(setup)?,
            Self::HitboxRedis => hitbox::open_redis(setup)?,
            Self::Cached | Self::CachedRedis => Box::new(cached::Cached::open(setup).await?),
            Self::CachedMemory => Box::new(memory::CachedInMemory),
            Self::Moka => Box::new(memory::Moka::open(setup)),
            Self::BareMoka => Box::new(memory::BareMoka::open(setup)),
            Self::ByHand => Box::new(by_hand::ByHand::open(setup).await?),
            Self::BareGet => Box::new(by_hand::BareGet::open(setup).await?),
        })
    }

    /// Checks that a value is cached, and that an invalidation causes a load.
    ///
    /// # Errors
    /// Returns an error if the library is not configured as intended.
    pub(crate) async fn check(self, redis: &str) -> anyhow::Result<()> {
        let (subject, load) = (self.open(redis).await?, Load::immediate());
        let mut counts = Vec::new();
        for _ in 0..2 {
            subject.read(0, &load).await?;
            // cached's L1 is filled by the second read.
            subject.read(0, &load).await?;
            counts.push(load.count());
            subject.invalidate(0).await?;
        }
        let expected = if self == Self::Control { [1, 1] } else { [1, 2] };
        anyhow::ensure!(counts == expected, "{}: loads after each invalidation: {counts:?}", self.name());
        Ok(())
    }
}
