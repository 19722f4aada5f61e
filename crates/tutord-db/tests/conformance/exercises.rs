use std::collections::HashSet;

use std::time::Duration;

use tutord_core::model::{
    CandidateFilter, DailyChoice, Difficulty, ExerciseStatus, ExerciseType, Grading, HistoryItem, Moment,
    NewAchievement, NewExercise, NewSubmission, RequestKey, Requirement, StoredSubmission, SubmissionOutcome,
    Transition,
};
use tutord_core::{Error, PageRequest, Position, Timestamp};

use crate::fixture::Fixture;

crate::on_both!(
    a_catalogue_is_loaded_once_and_changed_in_place,
    objectives_and_time_are_authored_or_follow_from_the_exercise,
    a_generated_exercise_is_seen_by_its_owner_alone,
    a_day_has_one_exercise_however_often_it_is_assigned,
    a_skipped_exercise_comes_back_when_it_is_due,
    hints_come_in_steps_until_none_is_left,
    a_passing_grade_completes,
    a_repeated_submission_is_stored_and_graded_once,
    a_repeated_generation_gives_the_same_exercise,
    forbidden_transitions_change_nothing,
    concurrent_completions_count_once,
    a_history_is_paged_and_filtered,
    candidates_are_of_the_catalogue_and_not_taken_up,
);

/// An exercise of a catalogue.
pub(crate) fn exercise(number: usize) -> NewExercise {
    NewExercise {
        slug: Some(format!("exercise-{number}")),
        title: format!("Exercise {number}"),
        description: "What is to be built.".to_owned(),
        instructions: "How it is to be built.".to_owned(),
        starter_code: None,
        solution: Some(format!("solution {number}")),
        hints: vec!["first".to_owned(), "second".to_owned()],
        exercise_type: ExerciseType::ALL[number % ExerciseType::ALL.len()],
        difficulty: Difficulty::ALL[number % Difficulty::ALL.len()],
        programming_language: ["python", "rust"][number % 2].to_owned(),
        topics: vec![["loops", "strings", "graphs"][number % 3].to_owned(), "all".to_owned()],
        test_cases: Some("f(1) -> 2".to_owned()),
        learning_objectives: Vec::new(),
        estimated_time_minutes: None,
        generation_prompt: None,
    }
}

pub(crate) fn achievement(slug: &str, requirement: Requirement, requirement_value: i32, points: i32) -> NewAchievement {
    NewAchievement {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        title: slug.to_owned(),
        description: "Something was achieved.".to_owned(),
        category: "special".parse().unwrap(),
        rarity: "rare".parse().unwrap(),
        requirement,
        requirement_value,
        requirement_description: "Do it.".to_owned(),
        icon: None,
        badge_color: None,
        points,
        hidden: false,
    }
}

/// A moment `days` days and some seconds after a fixed one, in UTC.
pub(crate) fn moment(days: i64, seconds: i64) -> Moment {
    let at = Timestamp::from_micros((1_790_000_000 + days * 86_400 + seconds) * 1_000_000);
    Moment::new(at, "UTC")
}

pub(crate) fn done<T>(transition: Transition<T>) -> T {
    match transition {
        Transition::Done(value) => value,
        Transition::NotFound => panic!("not found"),
        Transition::Forbidden(status) => panic!("forbidden from {status}"),
        Transition::NotStarted => panic!("not started"),
    }
}

/// A submission that waits for its grade.
#[track_caller]
pub(crate) fn ungraded(submitted: Transition<SubmissionOutcome>) -> StoredSubmission {
    match done(submitted) {
        SubmissionOutcome::Ungraded(submission) => submission,
        SubmissionOutcome::Graded(graded) => panic!("graded: {graded:?}"),
    }
}

pub(crate) fn grading(grade: i32) -> Grading {
    Grading { grade, feedback: format!("grade {grade}"), strengths: vec!["names".to_owned()], improvements: Vec::new() }
}

impl Fixture {
    /// Hands in a solution that is new.
    pub(crate) async fn submit(
        &self,
        user: i64,
        exercise: i64,
        new: &NewSubmission,
        at: Timestamp,
    ) -> StoredSubmission {
        ungraded(self.submit_solution(user, exercise, new, at).await.unwrap())
    }

    /// Submits an ungraded solution, so that the exercise can be completed.
    pub(crate) async fn start(&self, user_id: i64, exercise_id: i64) {
        done(
            self.submit_solution(user_id, exercise_id, &NewSubmission::new("x", None), moment(0, 0).at).await.unwrap(),
        );
    }

    /// Loads exercises 1 to `count`; their ids.
    pub(crate) async fn catalogue(&self, count: usize) -> Vec<i64> {
        let exercises: Vec<_> = (1..=count).map(exercise).collect();
        self.load_catalogue(&exercises, &[]).await.unwrap();
        let ids = self.lines("SELECT CAST(id AS TEXT) AS line FROM exercises ORDER BY id").await;
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }
}

async fn a_catalogue_is_loaded_once_and_changed_in_place(store: &Fixture) {
    let mut exercises: Vec<_> = (1..=3).map(exercise).collect();
    let achievements = [achievement("first", Requirement::Exercises, 1, 5)];
    let loaded = store.load_catalogue(&exercises, &achievements).await.unwrap();
    assert_eq!((loaded.created, loaded.updated, loaded.unchanged), (4, 0, 0));
    exercises[1].title = "Another title".to_owned();
    exercises[2].starter_code = Some("begin".to_owned());
    let loaded = store.load_catalogue(&exercises, &achievements).await.unwrap();
    assert_eq!((loaded.created, loaded.updated, loaded.unchanged), (0, 2, 2));
    exercises[2].starter_code = None;
    assert_eq!(store.load_catalogue(&exercises, &achievements).await.unwrap().updated, 1);
    assert_eq!((store.count("exercises").await, store.count("achievements").await), (3, 1));
    let ada = store.student("ada").await;
    assert_eq!(store.exercise(ada.id, 2).await.unwrap().unwrap().title, "Another title");
}

async fn objectives_and_time_are_authored_or_follow_from_the_exercise(store: &Fixture) {
    let mut exercises: Vec<_> = (1..=2).map(exercise).collect();
    exercises[1].learning_objectives = vec!["Read a file".to_owned(), "Close a file".to_owned()];
    exercises[1].estimated_time_minutes = Some(7);
    store.load_catalogue(&exercises, &[]).await.unwrap();
    let ada = store.student("ada").await;
    let shown = async |id| {
        let found = store.exercise(ada.id, id).await.unwrap().unwrap();
        (found.learning_objectives().join(", "), found.estimated_time_minutes())
    };
    assert_eq!(shown(1).await, ("Practise strings, Practise all".to_owned(), 20));
    assert_eq!(shown(2).await, ("Read a file, Close a file".to_owned(), 7));
}

async fn a_generated_exercise_is_seen_by_its_owner_alone(store: &Fixture) {
    let (ada, eve) = (store.student("ada").await, store.student("eve").await);
    let new = NewExercise { slug: None, generation_prompt: Some("a prompt".to_owned()), ..exercise(1) };
    let (exercise, user_exercise) = store.create_exercise(ada.id, &new, None).await.unwrap();
    assert!(exercise.generated_by_ai);
    assert_eq!((user_exercise.status, user_exercise.user_id), (ExerciseStatus::Pending, ada.id));
    assert_eq!(store.exercise(ada.id, exercise.id).await.unwrap().as_deref(), Some(&exercise));
    assert_eq!(store.exercise(eve.id, exercise.id).await.unwrap(), None);
    let now = moment(0, 0);
    assert_eq!(store.take_hint(eve.id, exercise.id, now.at).await.unwrap(), Transition::NotFound);
    assert_eq!(store.complete_exercise(eve.id, exercise.id, None, now.clone()).await.unwrap(), Transition::NotFound);
    assert_eq!(store.skip_exercise(eve.id, exercise.id, now.clone()).await.unwrap(), Transition::NotFound);
    assert_eq!(store.exercise_history(eve.id, None, &PageRequest::first(5)).await.unwrap().total, 0);
    let any = CandidateFilter { language: None, difficulty: None };
    assert_eq!(store.daily_candidates(eve.id, &any, 5).await.unwrap(), []);
}

async fn a_day_has_one_exercise_however_often_it_is_assigned(store: &Fixture) {
    let ids = store.catalogue(8).await;
    let ada = store.student("ada").await;
    let today = moment(0, 0);
    assert_eq!(store.newest_daily(ada.id).await.unwrap(), None);
    let mut requests = Vec::new();
    for id in ids.clone() {
        let store = store.store.clone();
        let today = today.clone();
        let request =
            async move { store.assign_daily(ada.id, &today, &DailyChoice::Existing(id)).await.unwrap().unwrap() };
        requests.push(tokio::spawn(request));
    }
    let (mut exercises, mut new) = (HashSet::new(), 0);
    for request in requests {
        let ((exercise, user_exercise), is_new) = request.await.unwrap();
        assert_eq!((user_exercise.daily_date, user_exercise.exercise_id), (Some(today.day), exercise.id));
        exercises.insert(exercise.id);
        new += usize::from(is_new);
    }
    assert_eq!((exercises.len(), new, store.count("user_exercises").await), (1, 1, 1));
    let next = moment(1, 0);
    let taken = exercises.into_iter().next().unwrap();
    let chosen = DailyChoice::Existing(taken);
    assert_eq!(store.assign_daily(ada.id, &next, &chosen).await.unwrap(), None, "it is yesterday's");
    let generated = DailyChoice::Generated(Box::new(NewExercise { slug: None, ..exercise(1) }));
    let ((generated, _), is_new) = store.assign_daily(ada.id, &next, &generated).await.unwrap().unwrap();
    assert!(is_new && !ids.contains(&generated.id));
}

async fn a_skipped_exercise_comes_back_when_it_is_due(store: &Fixture) {
    let ids = store.catalogue(2).await;
    let ada = store.student("ada").await;
    let (mut day, mut gaps) = (0, Vec::new());
    for _ in 0..5 {
        store.assign_daily(ada.id, &moment(day, 0), &DailyChoice::Existing(ids[0])).await.unwrap().unwrap();
        done(store.skip_exercise(ada.id, ids[0], moment(day, 5)).await.unwrap());
        done(store.skip_exercise(ada.id, ids[0], moment(day, 6)).await.unwrap());
        let mut gap = 0;
        while store.due_exercise(ada.id, moment(day + gap, 0).day).await.unwrap().is_none() {
            gap += 1;
        }
        gaps.push(gap);
        day += gap;
    }
    assert_eq!(gaps, [3, 7, 14, 30, 30]);
    let ((_, user_exercise), is_new) =
        store.assign_daily(ada.id, &moment(day, 0), &DailyChoice::Existing(ids[0])).await.unwrap().unwrap();
    assert_eq!((user_exercise.status, user_exercise.skip_count, is_new), (ExerciseStatus::Pending, 5, true));
    assert_eq!(store.due_exercise(ada.id, moment(day + 99, 0).day).await.unwrap(), None);
    assert_eq!(store.ended_exercises(ada.id, 5).await.unwrap(), []);
}

async fn hints_come_in_steps_until_none_is_left(store: &Fixture) {
    let ids = store.catalogue(1).await;
    let ada = store.student("ada").await;
    let at = moment(0, 0).at;
    for (step, text) in [(1, "first"), (2, "second")] {
        let taken = done(store.take_hint(ada.id, ids[0], at).await.unwrap()).unwrap();
        assert_eq!((taken.step, taken.steps, taken.hint.as_str()), (step, 2, text));
    }
    assert_eq!(done(store.take_hint(ada.id, ids[0], at).await.unwrap()), None);
    let history = store.exercise_history(ada.id, None, &PageRequest::first(5)).await.unwrap();
    let user_exercise = &history.items[0].user_exercise;
    assert_eq!((user_exercise.hints_used, user_exercise.status), (2, ExerciseStatus::InProgress));
    assert_eq!(user_exercise.started_at, Some(at));
}

async fn a_passing_grade_completes(store: &Fixture) {
    let ids = store.catalogue(1).await;
    let ada = store.student("ada").await;
    let now = moment(0, 0);
    let submission = store.submit(ada.id, ids[0], &NewSubmission::new("attempt", Some(60)), now.at).await;
    assert_eq!(submission.user_exercise.status, ExerciseStatus::InProgress);
    let graded = done(store.grade_submission(ada.id, &submission, &grading(59), now.clone()).await.unwrap());
    assert_eq!((graded.user_exercise.status, graded.solution), (ExerciseStatus::InProgress, None));
    let second = store.submit(ada.id, ids[0], &NewSubmission::new("better", Some(30)), now.at).await;
    assert_eq!((second.user_exercise.submission_count, second.user_exercise.time_spent_seconds), (2, 60));
    let graded = done(store.grade_submission(ada.id, &second, &grading(60), now.clone()).await.unwrap());
    assert_eq!(graded.user_exercise.status, ExerciseStatus::Completed);
    assert_eq!(graded.solution.as_deref(), Some("solution 1"));
    // A grade that comes late changes nothing that was counted.
    let late = done(store.grade_submission(ada.id, &submission, &grading(100), now.clone()).await.unwrap());
    assert_eq!((late.user_exercise.grade, late.solution.is_some()), (Some(60), true));
    let all = store.progress(ada.id).await.unwrap().all.unwrap();
    assert_eq!((all.exercises_completed, all.grade_sum, all.graded_count), (1, 60, 1));
}

async fn a_repeated_submission_is_stored_and_graded_once(store: &Fixture) {
    let ids = store.catalogue(2).await;
    let (ada, eve) = (store.student("ada").await, store.student("eve").await);
    let now = moment(0, 0);
    let keyed = |solution: &str| NewSubmission {
        request: Some(RequestKey::new("key".to_owned(), &["submit", solution])),
        ..NewSubmission::new(solution, None)
    };
    let submit =
        async |user: i64, id: i64, solution: &str| store.submit_solution(user, id, &keyed(solution), now.at).await;
    let first = ungraded(submit(ada.id, ids[0], "x").await.unwrap());
    let repeated = ungraded(submit(ada.id, ids[0], "x").await.unwrap());
    assert_eq!((repeated.id, repeated.user_exercise.submission_count), (first.id, 1));
    let reused = submit(ada.id, ids[0], "y").await;
    assert!(matches!(reused, Err(Error::KeyReused)), "{reused:?}");
    assert_ne!(ungraded(submit(eve.id, ids[0], "x").await.unwrap()).id, first.id, "another student's key");
    let graded = done(store.grade_submission(ada.id, &first, &grading(80), now.clone()).await.unwrap());
    let second = done(store.grade_submission(ada.id, &repeated, &grading(20), now.clone()).await.unwrap());
    assert_eq!(second, graded, "the first grade counts");
    assert_eq!((graded.grading, graded.solution.as_deref()), (grading(80), Some("solution 1")));
    let later = done(submit(ada.id, ids[0], "x").await.unwrap());
    assert_eq!(later, SubmissionOutcome::Graded(second), "also of an exercise that is completed");
    assert_eq!(store.count("submissions").await, 2);
    let expired = Timestamp::now() + Duration::from_hours(25);
    assert_eq!(store.purge_expired(expired, 10).await.unwrap(), 2);
    let refused = submit(ada.id, ids[0], "x").await.unwrap();
    assert_eq!(refused, Transition::Forbidden(ExerciseStatus::Completed), "the key is forgotten after a day");
}

async fn a_repeated_generation_gives_the_same_exercise(store: &Fixture) {
    let ada = store.student("ada").await;
    let request = |topic: &str| RequestKey::new("key".to_owned(), &["generate", topic]);
    assert_eq!(store.created_exercise(ada.id, &request("loops")).await.unwrap(), None);
    let [new, other] = [1, 2].map(|number| NewExercise { slug: None, ..exercise(number) });
    let loops = request("loops");
    let (one, two) = tokio::join!(
        store.create_exercise(ada.id, &new, Some(&loops)),
        store.create_exercise(ada.id, &other, Some(&loops)),
    );
    let one = one.unwrap();
    assert_eq!(two.unwrap(), one);
    assert_eq!(store.created_exercise(ada.id, &request("loops")).await.unwrap(), Some(one));
    for reused in [
        store.created_exercise(ada.id, &request("trees")).await.map(drop),
        store.create_exercise(ada.id, &new, Some(&request("trees"))).await.map(drop),
    ] {
        assert!(matches!(reused, Err(Error::KeyReused)), "{reused:?}");
    }
    assert_eq!(store.count("exercises").await, 1);
}

async fn forbidden_transitions_change_nothing(store: &Fixture) {
    let ids = store.catalogue(2).await;
    let ada = store.student("ada").await;
    let now = moment(0, 0);
    store.start(ada.id, ids[0]).await;
    let completed = done(store.complete_exercise(ada.id, ids[0], Some(10), now.clone()).await.unwrap());
    done(store.skip_exercise(ada.id, ids[1], now.clone()).await.unwrap());
    let everything = async || {
        let sql = "SELECT CAST(id AS TEXT) || status || hints_used || submission_count || points_earned \
             || time_spent_seconds || skip_count AS line FROM user_exercises ORDER BY id";
        (store.lines(sql).await, store.progress(ada.id).await.unwrap().all)
    };
    let before = everything().await;
    let later = moment(1, 0);
    for (id, status) in [(ids[0], ExerciseStatus::Completed), (ids[1], ExerciseStatus::Skipped)] {
        let submitted = store.submit_solution(ada.id, id, &NewSubmission::new("x", None), later.at).await.unwrap();
        assert_eq!(submitted, Transition::Forbidden(status));
        assert_eq!(store.take_hint(ada.id, id, later.at).await.unwrap(), Transition::Forbidden(status));
    }
    let skipped = store.skip_exercise(ada.id, ids[0], later.clone()).await.unwrap();
    assert_eq!(skipped, Transition::Forbidden(ExerciseStatus::Completed));
    let of_skipped = store.complete_exercise(ada.id, ids[1], None, later.clone()).await.unwrap();
    assert_eq!(of_skipped, Transition::Forbidden(ExerciseStatus::Skipped));
    let again = done(store.complete_exercise(ada.id, ids[0], Some(99), later.clone()).await.unwrap());
    assert_eq!(again, completed, "told the same");
    assert_eq!(store.complete_exercise(ada.id, 99, None, later.clone()).await.unwrap(), Transition::NotFound);
    assert_eq!(everything().await, before);
    assert_eq!(store.count("submissions").await, 1);
}

async fn concurrent_completions_count_once(store: &Fixture) {
    let ids = store.catalogue(3).await;
    store
        .load_catalogue(
            &[],
            &[achievement("first", Requirement::Exercises, 1, 5), achievement("third", Requirement::Exercises, 3, 7)],
        )
        .await
        .unwrap();
    let ada = store.student("ada").await;
    for id in &ids {
        store.start(ada.id, *id).await;
    }
    let mut requests = Vec::new();
    for round in 0..8 {
        for id in ids.clone() {
            let store = store.store.clone();
            let request = async move { store.complete_exercise(ada.id, id, None, moment(0, round)).await.unwrap() };
            requests.push(tokio::spawn(request));
        }
    }
    let mut answers: Vec<HashSet<String>> = vec![HashSet::new(); 3];
    for (index, request) in requests.into_iter().enumerate() {
        let answer = format!("{:?}", done(request.await.unwrap()));
        answers[index % 3].insert(answer);
    }
    for answers in answers {
        assert_eq!(answers.len(), 1, "every request is told the same: {answers:?}");
    }
    let all = store.progress(ada.id).await.unwrap().all.unwrap();
    // Exercises 1 to 3 are medium, hard and easy.
    assert_eq!((all.exercises_completed, all.points, all.achievements_unlocked), (3, 60 + 12, 2));
    assert_eq!(store.count("user_achievements").await, 2);
    let user = store.user(ada.id).await.unwrap().unwrap();
    assert_eq!((user.exercises_completed, user.current_streak, user.longest_streak), (3, 1, 1));
    assert_eq!(user.last_exercise_date, Some(moment(0, 0).day));
}

async fn a_history_is_paged_and_filtered(store: &Fixture) {
    let ids = store.catalogue(7).await;
    let (ada, eve) = (store.student("ada").await, store.student("eve").await);
    for id in &ids {
        store.start(eve.id, *id).await;
        store.start(ada.id, *id).await;
        done(store.complete_exercise(eve.id, *id, None, moment(0, 0)).await.unwrap());
        match id % 2 {
            0 => done(store.skip_exercise(ada.id, *id, moment(0, 0)).await.unwrap()),
            _ => drop(done(store.complete_exercise(ada.id, *id, None, moment(0, 0)).await.unwrap())),
        }
    }
    // Equal times: the id decides.
    store.execute("UPDATE user_exercises SET created_at = (SELECT max(created_at) FROM user_exercises)").await;
    let titles = |items: &[HistoryItem]| -> Vec<String> {
        items.iter().map(|item| item.title.trim_start_matches("Exercise ").to_owned()).collect()
    };
    let list = async |status, limit, position| {
        let page = store.exercise_history(ada.id, status, &PageRequest { limit, position }).await.unwrap();
        (titles(&page.items), page.total, page.next)
    };
    let (first, total, next) = list(None, 3, Position::Offset(0)).await;
    assert_eq!((first, total), (vec!["7".to_owned(), "6".to_owned(), "5".to_owned()], 7));
    let by_cursor = list(None, 4, Position::Cursor(next.unwrap())).await;
    assert_eq!(by_cursor, list(None, 4, Position::Offset(3)).await);
    assert_eq!((by_cursor.0.join(""), by_cursor.2), ("4321".to_owned(), None));
    let (skipped, total, next) = list(Some(ExerciseStatus::Skipped), 2, Position::Offset(0)).await;
    assert_eq!((skipped.join(""), total), ("64".to_owned(), 3));
    let (rest, ..) = list(Some(ExerciseStatus::Skipped), 2, Position::Cursor(next.unwrap())).await;
    assert_eq!(rest.join(""), "2");
    let exported = store.history_before(ada.id, None, 4).await.unwrap();
    let rest = store.history_before(ada.id, exported.last().map(HistoryItem::cursor), 9).await.unwrap();
    assert_eq!(titles(&exported).join("") + &titles(&rest).join(""), "7654321");
}

async fn candidates_are_of_the_catalogue_and_not_taken_up(store: &Fixture) {
    let ids = store.catalogue(12).await;
    let ada = store.student("ada").await;
    done(store.take_hint(ada.id, ids[0], moment(0, 0).at).await.unwrap());
    let choose = async |language: Option<&str>, difficulty, limit| {
        let choice = CandidateFilter { language: language.map(str::to_owned), difficulty };
        let candidates = store.daily_candidates(ada.id, &choice, limit).await.unwrap();
        candidates.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>()
    };
    assert_eq!(choose(None, None, 50).await, ids[1..]);
    assert_eq!(choose(None, None, 2).await, ids[1..3]);
    assert_eq!(choose(Some("rust"), Some(Difficulty::Medium), 50).await, [ids[6]], "all but the one taken up");
    assert_eq!(choose(Some("cobol"), None, 50).await, Vec::<i64>::new());
}
