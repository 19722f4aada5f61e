use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tutord_core::model::{NewSessionTokens, Rotation, TokenHash, User};
use tutord_core::{Database, Result, Timestamp};

use crate::fixture::Fixture;

crate::on_both!(
    a_session_is_known_by_its_access_token,
    a_retired_refresh_token_revokes_its_session,
    concurrent_rotations_of_one_token_all_succeed,
    tokens_of_an_earlier_version_are_accepted,
    a_session_keeps_few_refresh_tokens,
    rotations_follow_the_model,
    an_honest_browser_stays_logged_in,
    a_thief_is_found,
    inactive_users_keep_no_session,
    browsers_are_trusted_for_a_while,
    the_newest_browsers_are_trusted,
    a_session_needs_a_user,
    revoking_ends_sessions,
    expired_tokens_are_refused_then_purged,
    a_purge_takes_the_oldest_first,
);

/// The time for which a superseded token is accepted.
const GRACE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

fn tokens(number: u8) -> NewSessionTokens {
    let now = Timestamp::now();
    NewSessionTokens {
        access: access(number),
        access_expires_at: now + Duration::from_secs(3_600),
        refresh: refresh(number),
        refresh_expires_at: now + 30 * DAY,
    }
}

fn access(number: u8) -> TokenHash {
    [number; 32]
}

fn refresh(number: u8) -> TokenHash {
    [number + 100; 32]
}

async fn a_session_is_known_by_its_access_token(store: &Fixture) {
    let user = store.student("ada").await;
    assert!(user.last_login.is_none());
    let session_id = store.create_session(user.id, tokens(1)).await.unwrap();
    let identity = store.identity(&access(1), None).await.unwrap().unwrap();
    assert_eq!((identity.session_id, identity.user_id), (session_id, user.id));
    assert!(identity.email_verified && identity.is_active);
    assert!(store.identity(&access(2), None).await.unwrap().is_none());
    assert!(store.identity(&refresh(1), None).await.unwrap().is_none(), "a refresh token is no access token");
    assert_eq!(store.identity(&access(1), Some(user.id)).await.unwrap(), Some(identity));
    let other = store.student("bob").await.id;
    assert_eq!(store.identity(&access(1), Some(other)).await.unwrap(), None, "the token names another user");
    assert_eq!(store.refresh_token_owner(&refresh(1)).await.unwrap(), Some(user.id));
    assert_eq!(store.refresh_token_owner(&access(1)).await.unwrap(), None, "an access token is no refresh token");
    assert!(store.user(user.id).await.unwrap().unwrap().last_login.is_some());
}

async fn rotate(store: &dyn Database, refresh: &TokenHash, successors: NewSessionTokens) -> Result<Rotation> {
    store.rotate_session(refresh, successors, Timestamp::now(), GRACE).await
}

async fn a_retired_refresh_token_revokes_its_session(store: &Fixture) {
    let user = store.student("ada").await;
    let session_id = store.create_session(user.id, tokens(1)).await.unwrap();
    assert_eq!(rotate(&**store, &access(1), tokens(2)).await.unwrap(), Rotation::Unknown);
    let rotated = rotate(&**store, &refresh(1), tokens(2)).await.unwrap();
    assert_eq!(rotated, Rotation::Rotated { user_id: user.id });
    assert_eq!(store.identity(&access(2), None).await.unwrap().unwrap().session_id, session_id);
    rotate(&**store, &refresh(2), tokens(3)).await.unwrap();
    let later = Timestamp::now() + GRACE;
    let reused = store.rotate_session(&refresh(1), tokens(4), later, GRACE).await.unwrap();
    assert_eq!(reused, Rotation::Reused { user_id: user.id, session_id });
    for number in [1, 2, 3, 4] {
        assert!(store.identity(&access(number), None).await.unwrap().is_none(), "the session is revoked");
    }
    assert_eq!(rotate(&**store, &refresh(3), tokens(5)).await.unwrap(), Rotation::Unknown);
}

async fn concurrent_rotations_of_one_token_all_succeed(store: &Fixture) {
    let user = store.student("ada").await;
    store.create_session(user.id, tokens(1)).await.unwrap();
    let attempts = (2..10).map(|number| {
        let store = store.store.clone();
        tokio::spawn(async move { rotate(&*store, &refresh(1), tokens(number)).await.unwrap() })
    });
    for attempt in attempts.collect::<Vec<_>>() {
        assert_eq!(attempt.await.unwrap(), Rotation::Rotated { user_id: user.id });
    }
    for number in 1..10 {
        assert!(store.identity(&access(number), None).await.unwrap().is_some());
    }
    // They are of one generation: the first that is used retires the others.
    rotate(&**store, &refresh(5), tokens(10)).await.unwrap();
    let late = store.rotate_session(&refresh(6), tokens(11), Timestamp::now() + 2 * GRACE, GRACE).await.unwrap();
    assert!(matches!(late, Rotation::Reused { .. }), "{late:?}");
}

async fn tokens_of_an_earlier_version_are_accepted(store: &Fixture) {
    let user = store.student("ada").await;
    store.create_session(user.id, tokens(1)).await.unwrap();
    rotate(&**store, &refresh(1), tokens(2)).await.unwrap();
    store.execute("UPDATE session_tokens SET generation = NULL").await;
    store.execute("UPDATE sessions SET used_generation = -1, generation_used_at = NULL").await;
    let rotated = rotate(&**store, &refresh(2), tokens(3)).await.unwrap();
    assert_eq!(rotated, Rotation::Rotated { user_id: user.id });
    assert_eq!(rotate(&**store, &refresh(3), tokens(4)).await.unwrap(), Rotation::Rotated { user_id: user.id });
    let spent = store.rotate_session(&refresh(1), tokens(5), Timestamp::now() + 2 * GRACE, GRACE).await.unwrap();
    assert!(matches!(spent, Rotation::Reused { .. }), "{spent:?}");
}

async fn a_session_keeps_few_refresh_tokens(store: &Fixture) {
    let user = store.student("ada").await;
    let mut family = Family::begin(&**store, &user).await;
    for _ in 0..40 {
        family.present(0).await.unwrap();
    }
    assert_eq!(store.count("session_tokens").await, 41 + 1 + 16, "all access tokens, but 16 unused siblings");
    let newest = family.issued.len() - 1;
    family.present(newest).await.expect("the newest is there");
    for _ in 0..130 {
        family.present(family.issued.len() - 1).await.expect("a chain");
    }
    let refresh = store.count("session_tokens").await - i64::try_from(family.issued.len()).unwrap();
    assert!(refresh <= 100 + 16 + 2, "{refresh} refresh tokens");
}

/// A session as its clients see it, at a time of its own.
struct Family<'a> {
    store: &'a dyn Database,
    now: Timestamp,
    issued: Vec<Issued>,
    revoked: bool,
}

struct Issued {
    hash: TokenHash,
    generation: usize,
    used_at: Option<Timestamp>,
}

impl<'a> Family<'a> {
    async fn begin(store: &'a dyn Database, user: &User) -> Self {
        let mut family = Self { store, now: Timestamp::now(), issued: Vec::new(), revoked: false };
        let tokens = family.tokens();
        family.issued.push(Issued { hash: tokens.refresh, generation: 0, used_at: None });
        store.create_session(user.id, tokens).await.unwrap();
        family
    }

    fn tokens(&self) -> NewSessionTokens {
        NewSessionTokens {
            access: rand::random(),
            access_expires_at: self.now + DAY,
            refresh: rand::random(),
            refresh_expires_at: self.now + 30 * DAY,
        }
    }

    /// Returns `true` if the contract accepts the token.
    fn accepts(&self, number: usize) -> bool {
        let token = &self.issued[number];
        let newest = self.issued.iter().filter(|other| other.used_at.is_some()).map(|other| other.generation).max();
        let siblings = self.issued.iter().filter(|other| other.generation == token.generation);
        let superseded_at = token.used_at.or_else(|| siblings.filter_map(|sibling| sibling.used_at).min());
        let fresh = newest.is_none_or(|newest| token.generation > newest);
        let unanswered = newest == Some(token.generation) && token.used_at.is_some();
        !self.revoked && (fresh || unanswered || superseded_at.is_some_and(|at| self.now <= at + GRACE))
    }

    /// Presents a token; the number of the one that came back.
    async fn present(&mut self, number: usize) -> Option<usize> {
        let (successors, expected) = (self.tokens(), self.accepts(number));
        let hash = successors.refresh;
        let rotation = self.store.rotate_session(&self.issued[number].hash, successors, self.now, GRACE).await.unwrap();
        assert_eq!(matches!(rotation, Rotation::Rotated { .. }), expected, "{rotation:?}");
        assert_eq!(matches!(rotation, Rotation::Reused { .. }), !expected && !self.revoked, "{rotation:?}");
        self.revoked |= !expected;
        if !expected {
            return None;
        }
        self.issued[number].used_at.get_or_insert(self.now);
        let newest = self.issued.iter().filter(|other| other.used_at.is_some()).map(|other| other.generation).max();
        self.issued.push(Issued { hash, generation: newest.unwrap() + 1, used_at: None });
        Some(self.issued.len() - 1)
    }
}

/// Runs a property of random steps; the database calls run on this thread.
async fn for_all<S: Strategy>(
    store: &Fixture,
    steps: S,
    property: impl AsyncFn(Family<'_>, S::Value) -> std::result::Result<(), TestCaseError>,
) {
    let user = store.student("ada").await;
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) };
    let outcome = tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&steps, |steps| {
            tokio::runtime::Handle::current().block_on(async {
                let family = Family::begin(&**store, &user).await;
                property(family, steps).await
            })
        })
    });
    outcome.unwrap();
}

/// Seconds between two steps: a moment, around the grace, an hour, a phone that was offline.
fn pause() -> impl Strategy<Value = Duration> {
    prop::sample::select(vec![0, 1, 29, 30, 31, 3_600, 5 * 86_400]).prop_map(Duration::from_secs)
}

async fn rotations_follow_the_model(store: &Fixture) {
    let steps = prop::collection::vec((any::<prop::sample::Index>(), pause()), 1..20);
    for_all(store, steps, async |mut family, steps| {
        for (token, pause) in steps {
            family.now = family.now + pause.min(DAY);
            // Of any token that was ever issued, the newest half is presented most.
            let number = token.index(family.issued.len());
            family.present(number.max(family.issued.len() / 2)).await;
        }
        Ok(())
    })
    .await;
}

/// Tabs that present the cookie's token at once: of each, whether its answer arrives. The last that arrives stays.
async fn an_honest_browser_stays_logged_in(store: &Fixture) {
    let round = (pause(), prop::collection::vec(any::<bool>(), 1..4), any::<prop::sample::Index>());
    for_all(store, prop::collection::vec(round, 1..15), async |mut family, rounds| {
        let mut cookie = 0;
        for (pause, tabs, last) in rounds {
            family.now = family.now + pause;
            let mut arrived = Vec::new();
            for arrives in tabs {
                let Some(answer) = family.present(cookie).await else {
                    return Err(TestCaseError::fail("logged out"));
                };
                arrived.extend(arrives.then_some(answer));
            }
            if !arrived.is_empty() {
                cookie = arrived[last.index(arrived.len())];
            }
        }
        Ok(())
    })
    .await;
}

async fn a_thief_is_found(store: &Fixture) {
    let steps = (0_usize..4, prop::collection::vec((any::<bool>(), 31_u64..90_000), 8..16));
    for_all(store, steps, async |mut family, (before, turns)| {
        let mut stolen = 0;
        for _ in 0..before {
            family.now = family.now + Duration::from_secs(3_600);
            stolen = family.present(stolen).await.expect("alone");
        }
        // Both go on from the same cookie. Index 0 is the victim, 1 the thief.
        let (mut held, mut exchanges) = ([stolen; 2], [0; 2]);
        for (thief, pause) in turns {
            family.now = family.now + Duration::from_secs(pause);
            let who = usize::from(thief);
            exchanges[who] += 1;
            match family.present(held[who]).await {
                Some(answer) => held[who] = answer,
                None => return Ok(()),
            }
            prop_assert!(exchanges.iter().any(|exchanges| *exchanges < 2), "both refreshed twice");
        }
        Ok(())
    })
    .await;
}

async fn inactive_users_keep_no_session(store: &Fixture) {
    let user = store.student("ada").await;
    store.create_session(user.id, tokens(1)).await.unwrap();
    store.execute("UPDATE users SET is_active = FALSE").await;
    assert!(!store.identity(&access(1), None).await.unwrap().unwrap().is_active, "so that the answer can say so");
    assert_eq!(rotate(&**store, &refresh(1), tokens(2)).await.unwrap(), Rotation::Unknown);
    assert!(store.identity(&access(2), None).await.unwrap().is_none());
}

async fn browsers_are_trusted_for_a_while(store: &Fixture) {
    let (ada, bob) = (store.student("ada").await, store.student("bob").await);
    let now = Timestamp::now();
    store.trust_device(ada.id, &[1; 32], now + DAY).await.unwrap();
    store.trust_device(ada.id, &[1; 32], now + 2 * DAY).await.unwrap();
    store.trust_device(ada.id, &[2; 32], now).await.unwrap();
    assert!(store.is_trusted_device(ada.id, &[1; 32]).await.unwrap());
    assert!(!store.is_trusted_device(bob.id, &[1; 32]).await.unwrap(), "another's");
    assert!(!store.is_trusted_device(ada.id, &[2; 32]).await.unwrap(), "no longer");
    assert_eq!(store.purge_expired(now + DAY, 100).await.unwrap(), 1);
    assert!(store.is_trusted_device(ada.id, &[1; 32]).await.unwrap());
}

async fn the_newest_browsers_are_trusted(store: &Fixture) {
    let (ada, bob) = (store.student("ada").await, store.student("bob").await);
    let now = Timestamp::now();
    store.trust_device(bob.id, &[0; 32], now + DAY).await.unwrap();
    for number in 0..25 {
        store.trust_device(ada.id, &[number; 32], now + DAY + Duration::from_secs(number.into())).await.unwrap();
    }
    assert_eq!(store.count("trusted_devices").await, 21);
    assert!(!store.is_trusted_device(ada.id, &[4; 32]).await.unwrap());
    assert!(store.is_trusted_device(ada.id, &[5; 32]).await.unwrap());
    assert!(store.is_trusted_device(bob.id, &[0; 32]).await.unwrap());
}

async fn a_session_needs_a_user(store: &Fixture) {
    let user = store.student("ada").await;
    assert!(store.create_session(user.id + 1, tokens(1)).await.is_err());
    store.create_session(user.id, tokens(1)).await.unwrap();
    // Hashes of random tokens don't meet; if they did, nothing of the second session would stay.
    let taken = NewSessionTokens { access: access(2), ..tokens(1) };
    let taken = store.create_session(user.id, taken).await;
    assert!(matches!(taken, Err(tutord_core::Error::Conflict(_))), "{taken:?}");
    assert!(store.identity(&access(2), None).await.unwrap().is_none());
    assert_eq!((store.count("sessions").await, store.count("session_tokens").await), (1, 2));
}

async fn revoking_ends_sessions(store: &Fixture) {
    let (ada, bob) = (store.student("ada").await, store.student("bob").await);
    let first = store.create_session(ada.id, tokens(1)).await.unwrap();
    for (user, number) in [(&ada, 2), (&ada, 3), (&ada, 4), (&bob, 5)] {
        store.create_session(user.id, tokens(number)).await.unwrap();
    }
    let alive = async |numbers: [u8; 5]| {
        let mut alive = Vec::new();
        for number in numbers {
            if store.identity(&access(number), None).await.unwrap().is_some() {
                alive.push(number);
            }
        }
        alive
    };
    store.revoke_session(ada.id, first).await.unwrap();
    assert_eq!(alive([1, 2, 3, 4, 5]).await, [2, 3, 4, 5]);
    store.revoke_session_of(&refresh(2)).await.unwrap();
    store.revoke_session_of(&access(3)).await.unwrap();
    assert_eq!(alive([1, 2, 3, 4, 5]).await, [3, 4, 5], "only a refresh token ends its session");
    store.revoke_sessions(ada.id).await.unwrap();
    assert_eq!(alive([1, 2, 3, 4, 5]).await, [5]);
    assert_eq!(rotate(&**store, &refresh(3), tokens(6)).await.unwrap(), Rotation::Unknown);
}

async fn expired_tokens_are_refused_then_purged(store: &Fixture) {
    let user = store.student("ada").await;
    let past = Timestamp::now() - DAY;
    let expired = NewSessionTokens { access_expires_at: past, refresh_expires_at: past, ..tokens(1) };
    store.create_session(user.id, expired).await.unwrap();
    store.create_session(user.id, tokens(2)).await.unwrap();
    assert_eq!(
        store.identity(&access(1), None).await.unwrap().unwrap().expires_at,
        past,
        "so that the answer can say so"
    );
    assert_eq!(rotate(&**store, &refresh(1), tokens(3)).await.unwrap(), Rotation::Unknown);
    assert_eq!(store.purge_expired(past, 100).await.unwrap(), 0);
    assert_eq!(store.purge_expired(Timestamp::now(), 100).await.unwrap(), 3, "two tokens and their session");
    assert_eq!(store.purge_expired(Timestamp::now(), 100).await.unwrap(), 0);
    assert!(store.identity(&access(1), None).await.unwrap().is_none());
    assert!(store.identity(&access(2), None).await.unwrap().is_some());
}

async fn a_purge_takes_the_oldest_first(store: &Fixture) {
    let user = store.student("ada").await;
    let now = Timestamp::now();
    for age in 1..=5u8 {
        let ended = now - DAY * u32::from(age);
        let expired = NewSessionTokens { access_expires_at: ended, refresh_expires_at: ended, ..tokens(age) };
        store.create_session(user.id, expired).await.unwrap();
    }
    assert!(store.purge_expired(now, 2).await.unwrap() > 0);
    assert!(store.identity(&access(5), None).await.unwrap().is_none(), "its session went");
    assert!(store.identity(&access(1), None).await.unwrap().is_some(), "left for a later batch");
    while store.purge_expired(now, 2).await.unwrap() > 0 {}
    assert!(store.identity(&access(1), None).await.unwrap().is_none());
}
