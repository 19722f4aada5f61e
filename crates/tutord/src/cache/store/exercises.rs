//! The cached store: exercises and the progress of students in them.

use std::sync::Arc;

use async_trait::async_trait;
use readthrough::Key;
use tutord_core::model::{
    AssignedExercise, Candidate, CandidateFilter, CatalogueCounts, Completion, DailyChoice, Difficulty, Exercise,
    ExerciseStatus, GradedSubmission, Grading, HistoryItem, Moment, NewAchievement, NewExercise, NewSubmission,
    NewestDailyExercise, RequestKey, StoredSubmission, SubmissionOutcome, TakenHint, Transition,
};
use tutord_core::page::{Cursor, Page, PageRequest};
use tutord_core::store::{Exercises, Loaded};
use tutord_core::{LocalDate, Result, Timestamp};

use super::super::effects::{CacheEffect, own_exercise};
use super::super::namespaces::OwnExercises;
use super::{CachedStore, fresh, owned, page_member, read_error};

#[async_trait]
impl Exercises for CachedStore {
    async fn load_catalogue(
        &self,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<CatalogueCounts> {
        let (store, exercises, achievements) = (Arc::clone(&self.store), exercises.to_vec(), achievements.to_vec());
        self.write(async move { store.load_catalogue(&exercises, &achievements).await }, |loaded| match loaded {
            Ok(loaded) if loaded.created + loaded.updated == 0 => Vec::new(),
            _ => vec![CacheEffect::Catalogue],
        })
        .await
    }

    async fn load_built_in_catalogue(
        &self,
        version: &str,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<Option<CatalogueCounts>> {
        let (store, exercises, achievements) = (Arc::clone(&self.store), exercises.to_vec(), achievements.to_vec());
        let version = version.to_owned();
        let load = async move { store.load_built_in_catalogue(&version, &exercises, &achievements).await };
        self.write(load, |loaded| match loaded {
            Ok(None) => Vec::new(),
            _ => vec![CacheEffect::Catalogue],
        })
        .await
    }

    async fn catalogue_exercises(&self, limit: i64) -> Result<Vec<Exercise>> {
        self.store.catalogue_exercises(limit).await
    }

    async fn exercise(&self, user_id: i64, id: i64) -> Result<Option<Loaded<Exercise>>> {
        // Exercises of the catalogue are the same for all students; generated ones belong to one student.
        let load = async || {
            let found = fresh(self.store.exercise(user_id, id).await?);
            Ok::<_, tutord_core::Error>(found.filter(|exercise| !exercise.generated_by_ai))
        };
        if let Some(found) = self.namespaces.exercises.get_or_load(&Key::new(id), load).await.map_err(read_error)? {
            return Ok(Some(self.loaded(found)));
        }
        let load = async || self.store.exercise(user_id, id).await.map(fresh);
        let found =
            self.namespaces.own_exercises.get_or_load(&own_exercise(user_id, id), load).await.map_err(read_error)?;
        Ok(found.map(|exercise| self.loaded(exercise)))
    }

    async fn newest_daily(&self, user_id: i64) -> Result<Option<NewestDailyExercise>> {
        let key = Key::in_group(user_id, "daily");
        let load = async || {
            let found = self.store.newest_daily(user_id).await?;
            Ok::<_, tutord_core::Error>(found.map(|newest| OwnExercises::Daily(Box::new(newest))))
        };
        match owned(self.namespaces.exercise_lists.get_or_load(&key, load).await.map_err(read_error)?) {
            Some(OwnExercises::Daily(newest)) => Ok(Some(*newest)),
            _ => Ok(None),
        }
    }

    async fn due_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<i64>> {
        self.store.due_exercise(user_id, day).await
    }

    async fn daily_candidates(&self, user_id: i64, choice: &CandidateFilter, limit: i64) -> Result<Vec<Candidate>> {
        self.store.daily_candidates(user_id, choice, limit).await
    }

    async fn assign_daily(
        &self,
        user_id: i64,
        moment: &Moment,
        chosen: &DailyChoice,
    ) -> Result<Option<(AssignedExercise, bool)>> {
        let (store, moment, chosen) = (Arc::clone(&self.store), moment.clone(), chosen.clone());
        self.write(async move { store.assign_daily(user_id, &moment, &chosen).await }, move |assigned| {
            let exercise = assigned.iter().flatten().map(|((exercise, _), _)| exercise.id).next().unwrap_or(0);
            vec![CacheEffect::Exercise { user: user_id, exercise }]
        })
        .await
    }

    async fn create_exercise(
        &self,
        user_id: i64,
        new: &NewExercise,
        request: Option<&RequestKey>,
    ) -> Result<AssignedExercise> {
        let (store, new, request) = (Arc::clone(&self.store), new.clone(), request.cloned());
        self.write(async move { store.create_exercise(user_id, &new, request.as_ref()).await }, move |created| {
            let exercise = created.iter().map(|(exercise, _)| exercise.id).next().unwrap_or(0);
            vec![CacheEffect::Exercise { user: user_id, exercise }]
        })
        .await
    }

    async fn created_exercise(&self, user_id: i64, request: &RequestKey) -> Result<Option<AssignedExercise>> {
        self.store.created_exercise(user_id, request).await
    }

    async fn exercise_history(
        &self,
        user_id: i64,
        status: Option<ExerciseStatus>,
        page: &PageRequest,
    ) -> Result<Page<HistoryItem>> {
        let status_name = status.map_or("all", ExerciseStatus::as_str);
        let key = Key::in_group(user_id, format_args!("{status_name}:{}", page_member(page)));
        let load = async || {
            let found = self.store.exercise_history(user_id, status, page).await?;
            Ok::<_, tutord_core::Error>(Some(OwnExercises::Page(found)))
        };
        match owned(self.namespaces.exercise_lists.get_or_load(&key, load).await.map_err(read_error)?) {
            Some(OwnExercises::Page(found)) => Ok(found),
            _ => self.store.exercise_history(user_id, status, page).await,
        }
    }

    async fn history_before(&self, user_id: i64, cursor: Option<Cursor>, limit: i64) -> Result<Vec<HistoryItem>> {
        self.store.history_before(user_id, cursor, limit).await
    }

    async fn ended_exercises(&self, user_id: i64, limit: i64) -> Result<Vec<HistoryItem>> {
        let key = Key::in_group(user_id, format_args!("ended:{limit}"));
        let load = async || {
            let found = self.store.ended_exercises(user_id, limit).await?;
            Ok::<_, tutord_core::Error>(Some(OwnExercises::Ended(found)))
        };
        match owned(self.namespaces.exercise_lists.get_or_load(&key, load).await.map_err(read_error)?) {
            Some(OwnExercises::Ended(found)) => Ok(found),
            _ => self.store.ended_exercises(user_id, limit).await,
        }
    }

    async fn take_hint(&self, user_id: i64, exercise_id: i64, at: Timestamp) -> Result<Transition<Option<TakenHint>>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.take_hint(user_id, exercise_id, at).await };
        self.write(write, move |_| vec![CacheEffect::Exercise { user: user_id, exercise: exercise_id }]).await
    }

    async fn submit_solution(
        &self,
        user_id: i64,
        exercise_id: i64,
        new: &NewSubmission,
        at: Timestamp,
    ) -> Result<Transition<SubmissionOutcome>> {
        let (store, new) = (Arc::clone(&self.store), new.clone());
        let write = async move { store.submit_solution(user_id, exercise_id, &new, at).await };
        self.write(write, move |_| vec![CacheEffect::Exercise { user: user_id, exercise: exercise_id }]).await
    }

    async fn grade_submission(
        &self,
        user_id: i64,
        submission: &StoredSubmission,
        grading: &Grading,
        moment: Moment,
    ) -> Result<Transition<GradedSubmission>> {
        let (store, submission, grading) = (Arc::clone(&self.store), submission.clone(), grading.clone());
        let written = CacheEffect::Completion { user: user_id, exercise: submission.exercise.id };
        let write = async move { store.grade_submission(user_id, &submission, &grading, moment).await };
        self.write(write, move |_| vec![written]).await
    }

    async fn complete_exercise(
        &self,
        user_id: i64,
        exercise_id: i64,
        time_spent_seconds: Option<i32>,
        moment: Moment,
    ) -> Result<Transition<Completion>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.complete_exercise(user_id, exercise_id, time_spent_seconds, moment).await };
        self.write(write, move |_| vec![CacheEffect::Completion { user: user_id, exercise: exercise_id }]).await
    }

    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.skip_exercise(user_id, exercise_id, moment).await };
        self.write(write, move |_| vec![CacheEffect::Exercise { user: user_id, exercise: exercise_id }]).await
    }

    async fn exercise_difficulty(&self, user_id: i64) -> Result<Option<Difficulty>> {
        self.store.exercise_difficulty(user_id).await
    }

    async fn set_exercise_difficulty(&self, user_id: i64, difficulty: Difficulty) -> Result<()> {
        let store = Arc::clone(&self.store);
        // No cached value contains the difficulty. The write is still acknowledged, so that no other process invalidates the profile.
        self.write(async move { store.set_exercise_difficulty(user_id, difficulty).await }, |_| Vec::new()).await
    }
}
