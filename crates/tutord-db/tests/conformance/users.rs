use tutord_core::Error;
use tutord_core::model::{LearningProfile, SkillLevel, UserChanges};

use crate::fixture::{Fixture, learning_profile, new_user};

crate::on_both!(
    addresses_are_unique_whatever_their_form,
    addresses_from_before_are_brought_to_the_present_form,
    changes_touch_only_what_they_name,
    onboarding_completes_once,
    a_password_hash_is_replaced_once,
);

async fn addresses_are_unique_whatever_their_form(store: &Fixture) {
    let user = store.create_user(new_user("Ada.Löve@Example.com")).await.unwrap();
    assert_eq!(user.email, "Ada.Löve@Example.com");
    let taken = store.create_user(new_user("ada.lÖve@example.COM")).await;
    assert!(matches!(taken, Err(Error::Conflict(_))), "{taken:?}");
    for (first, second) in [("a@exämple.test", "A@xn--exmple-cua.test"), ("STRASSE@b.test", "straße@b.test")] {
        store.create_user(new_user(first)).await.unwrap();
        let taken = store.create_user(new_user(second)).await;
        assert!(matches!(taken, Err(Error::Conflict(_))), "{taken:?}");
        assert_eq!(store.credentials(second).await.unwrap().unwrap().user.email, first);
    }
    let found = store.credentials("ADA.LO\u{308}VE@example.com").await.unwrap().unwrap();
    assert_eq!((found.user, found.password_hash.as_str()), (user.clone(), "$argon2id$fake"));
    assert_eq!(*store.user(user.id).await.unwrap().unwrap(), user);
    assert!(store.credentials("bob@example.com").await.unwrap().is_none());
    assert!(store.user(user.id + 100).await.unwrap().is_none());
}

async fn addresses_from_before_are_brought_to_the_present_form(store: &Fixture) {
    // As an earlier version wrote them: the key is the address in lower case.
    let before = [
        ("Anna@exämple.test", "anna@exämple.test"),
        ("Straße@b.test", "straße@b.test"),
        ("strasse@b.test", "strasse@b.test"),
        ("Lo\u{308}ve@b.test", "lo\u{308}ve@b.test"),
        ("ada@b.test", "ada@b.test"),
    ];
    let mut ids = Vec::new();
    for (number, (email, folded)) in before.into_iter().enumerate() {
        ids.push(store.create_user(new_user(&format!("{number}@other.test"))).await.unwrap().id);
        let old = format!("UPDATE users SET email = '{email}', email_folded = '{folded}' WHERE id = {}", ids[number]);
        store.execute(&old).await;
    }
    assert!(store.credentials("anna@xn--exmple-cua.test").await.unwrap().is_none());
    store.execute("INSERT INTO backfills (name) VALUES ('addresses')").await;
    for _ in 0..2 {
        store.migrate().await.unwrap();
        assert_eq!(store.count("backfills").await, 0);
        assert_eq!(store.address_collisions(10).await.unwrap(), [ids[1]]);
    }
    let user = async |email: &str| store.credentials(email).await.unwrap().map(|found| found.user.id);
    for (email, number) in [
        ("anna@xn--exmple-cua.test", 0),
        ("ANNA@EXÄMPLE.test", 0),
        ("Straße@b.test", 1),
        ("straße@B.test", 1),
        ("strasse@b.test", 2),
        ("STRASSE@b.test", 2),
        ("L\u{f6}ve@b.test", 3),
        ("lo\u{308}ve@b.test", 3),
        ("Ada@b.test", 4),
    ] {
        assert_eq!(user(email).await, Some(ids[number]), "{email}");
    }
    store.execute("DELETE FROM users").await;
    assert_eq!(store.address_collisions(10).await.unwrap(), Vec::<i64>::new());
}

async fn a_password_hash_is_replaced_once(store: &Fixture) {
    let user = store.student("ada").await;
    store.replace_password_hash(user.id, "$argon2id$other", "$argon2id$lost").await.unwrap();
    store.replace_password_hash(user.id, "$argon2id$fake", "$argon2id$new").await.unwrap();
    store.replace_password_hash(user.id, "$argon2id$fake", "$argon2id$late").await.unwrap();
    assert_eq!(store.credentials("ada@example.com").await.unwrap().unwrap().password_hash, "$argon2id$new");
}

async fn changes_touch_only_what_they_name(store: &Fixture) {
    let user = store.student("ada").await;
    let changes = UserChanges {
        bio: Some("I'm \"Ada\"; DROP TABLE users; --\n<b>é</b>".to_owned()),
        skill_level: Some(SkillLevel::Expert),
        timezone: Some("Europe/Berlin".to_owned()),
        ..UserChanges::default()
    };
    let changed = store.update_user(user.id, changes.clone()).await.unwrap().unwrap();
    assert_eq!(changed.bio, changes.bio);
    assert_eq!((changed.skill_level, changed.timezone.as_str()), (Some(SkillLevel::Expert), "Europe/Berlin"));
    assert_eq!((changed.name.as_str(), changed.career_goals.as_ref()), (user.name.as_str(), None));
    assert!(changed.updated_at > user.updated_at);
    assert_eq!(*store.user(user.id).await.unwrap().unwrap(), changed);
    assert!(store.update_user(user.id + 1, changes).await.unwrap().is_none());
}

async fn onboarding_completes_once(store: &Fixture) {
    let user = store.student("ada").await;
    let completed = store.complete_onboarding(user.id, learning_profile()).await.unwrap().unwrap();
    assert!(completed.onboarding_completed && !user.onboarding_completed);
    assert_eq!(completed.programming_language.as_deref(), Some("rust"));
    let again = LearningProfile { programming_language: "go".to_owned(), ..learning_profile() };
    assert!(store.complete_onboarding(user.id, again).await.unwrap().is_none());
    assert_eq!(*store.user(user.id).await.unwrap().unwrap(), completed);
    assert!(store.complete_onboarding(user.id + 1, learning_profile()).await.unwrap().is_none(), "no such user");
}
