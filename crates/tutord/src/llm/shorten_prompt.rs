//! Shortens a prompt that an endpoint refused because of its length.

use std::borrow::Cow;

use super::tokens::MESSAGE_OVERHEAD;
use super::{ChatMessage, ChatRequest, PromptRole, estimate_tokens};

/// The minimum length of a truncated question, in tokens.
const MIN_QUESTION_TOKENS: u32 = 64;
/// Marks the omitted part of a truncated question.
const OMISSION: &str = "\n[…]\n";

/// Returns the estimated tokens of a prompt.
pub(super) fn prompt_tokens(messages: &[ChatMessage]) -> u32 {
    messages.iter().map(message_tokens).fold(0, u32::saturating_add)
}

fn message_tokens(message: &ChatMessage) -> u32 {
    estimate_tokens(&message.content).saturating_add(MESSAGE_OVERHEAD)
}

/// Returns a prompt that is shorter than `refused` tokens, with at most `limit` tokens if possible; `None` if no
/// shorter prompt exists.
///
/// Drops the oldest turns first, then the oldest questions of the last turn. Truncates the newest question only if the
/// endpoint refused the prompt with this question alone, or, in the last attempt, if that prompt exceeds the limit.
pub(super) fn shorten(request: &ChatRequest, limit: u32, refused: u32, is_last: bool) -> Option<Vec<ChatMessage>> {
    let instructions = request.messages.iter().take_while(|message| message.role == PromptRole::System).count();
    let (instructions, turns) = request.messages.split_at(instructions);
    let (last, before) = turns.split_last()?;
    let with = |rest: &[ChatMessage]| [instructions, rest].concat();
    let of_instructions = prompt_tokens(instructions);
    if !is_last {
        let sizes: Vec<u32> = turns.iter().map(message_tokens).collect();
        let mut size = sizes.iter().fold(of_instructions, |sum, size| sum.saturating_add(*size));
        for (index, of_turn) in sizes.iter().enumerate().take(before.len()) {
            size = size.saturating_sub(*of_turn);
            // The first turn of a prompt must be a message of the user.
            if turns[index + 1].role == PromptRole::User && size <= limit && size < refused {
                return Some(with(&turns[index + 1..]));
            }
        }
    }
    let question = |content: Cow<'_, str>| ChatMessage { role: last.role, content: content.into_owned() };
    let starts = || request.question_starts.iter().copied().filter(|start| last.content.is_char_boundary(*start));
    let newest = starts().next_back();
    if !is_last {
        let mut end = last.content.len();
        let mut size = of_instructions.saturating_add(MESSAGE_OVERHEAD);
        // Iterates from the newest question back to the oldest one that fits.
        let mut fitting = None;
        for start in starts().rev() {
            size = size.saturating_add(estimate_tokens(&last.content[start..end]));
            if size > limit || size >= refused {
                break;
            }
            fitting = Some(start);
            end = start;
        }
        let shorter = fitting.map(|start| with(&[question(last.content[start..].into())]));
        if let Some(shorter) = shorter.filter(|shorter| prompt_tokens(shorter) < refused) {
            return Some(shorter);
        }
    }
    let whole = &last.content[newest.unwrap_or_default()..];
    let alone = with(&[question(whole.into())]);
    let size = prompt_tokens(&alone);
    if size < refused && (size <= limit || !is_last || newest.is_none()) {
        return Some(alone);
    }
    // A message without question offsets must not be truncated.
    newest?;
    let room = limit.min(refused.saturating_sub(1)).saturating_sub(of_instructions.saturating_add(MESSAGE_OVERHEAD));
    let cut = with(&[question(omit_middle(whole, room.max(MIN_QUESTION_TOKENS)).into())]);
    if prompt_tokens(&cut) >= refused {
        return None;
    }
    tracing::info!("a question is too long for the model; omitting its middle");
    Some(cut)
}

/// Omits the middle of a text, so that at most `tokens` tokens remain.
fn omit_middle(text: &str, tokens: u32) -> String {
    let mut kept_bytes = text.len();
    loop {
        let size =
            estimate_tokens(&text[..text.floor_char_boundary(kept_bytes)]).saturating_add(estimate_tokens(OMISSION));
        if size <= tokens || kept_bytes == 0 {
            break;
        }
        // Scales by proportion, and removes at least a tenth.
        let scaled =
            u64::try_from(kept_bytes).unwrap_or(u64::MAX).saturating_mul(u64::from(tokens)) / u64::from(size.max(1));
        kept_bytes = usize::try_from(scaled).unwrap_or(kept_bytes).min(kept_bytes - kept_bytes.div_ceil(10));
    }
    if kept_bytes == text.len() {
        return text.to_owned();
    }
    let head = &text[..text.floor_char_boundary(kept_bytes / 2)];
    let tail = &text[text.ceil_char_boundary(text.len() - kept_bytes / 2)..];
    format!("{head}{OMISSION}{tail}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(role: PromptRole, content: &str) -> ChatMessage {
        ChatMessage { role, content: content.to_owned() }
    }

    /// A conversation with three unanswered questions at its end.
    fn conversation() -> ChatRequest {
        let words = "some words ".repeat(20);
        let mut messages = vec![message(PromptRole::System, "teach")];
        for number in 0..4 {
            messages.push(message(PromptRole::User, &format!("question {number} {words}")));
            messages.push(message(PromptRole::Assistant, &format!("answer {number} {words}")));
        }
        let questions = [format!("lost one {words}"), format!("lost two {words}"), "the newest question".to_owned()];
        let last = questions.join("\n\n");
        let question_starts = vec![0, questions[0].len() + 2, questions[0].len() + questions[1].len() + 4];
        messages.push(message(PromptRole::User, &last));
        ChatRequest { messages, max_tokens: 9, temperature: 0.7, student: None, question_starts }
    }

    #[test]
    fn old_turns_are_dropped_before_old_questions_before_words() {
        let request = conversation();
        let whole = prompt_tokens(&request.messages);
        let contents = |limit, refused, is_last| -> Vec<String> {
            let shorter = shorten(&request, limit, refused, is_last).unwrap();
            assert!(prompt_tokens(&shorter) < refused);
            assert_eq!((shorter[0].role, shorter[1].role), (PromptRole::System, PromptRole::User));
            shorter.into_iter().map(|message| message.content).collect()
        };
        let half = contents(whole / 2, whole, false);
        assert!(half.len() == 4 && half[1].starts_with("question 3") && half[3].starts_with("lost one"), "{half:?}");
        let two = contents(whole / 6, whole, false);
        assert!(two.len() == 2 && two[1].starts_with("lost two") && two[1].ends_with("question"), "{two:?}");
        for alone in [contents(20, whole, false), contents(whole / 2, whole, true)] {
            assert_eq!(alone, ["teach", "the newest question"]);
        }
        let refused =
            prompt_tokens(&[message(PromptRole::System, "teach"), message(PromptRole::User, "the newest question")]);
        assert_eq!(shorten(&request, 20, refused, false), None, "a question this short is not truncated");
    }

    #[test]
    fn a_truncated_question_retains_its_beginning_and_end() {
        let text = format!("My code: {} Why does it fail?", "let é = f(x); ".repeat(300));
        let mut request = conversation();
        request.messages = vec![message(PromptRole::System, "teach"), message(PromptRole::User, &text)];
        request.question_starts = vec![0];
        let whole = prompt_tokens(&request.messages);
        let shorter = shorten(&request, whole / 2, whole, false).unwrap();
        let cut = &shorter[1].content;
        assert!(prompt_tokens(&shorter) <= whole * 3 / 5, "{}", prompt_tokens(&shorter));
        assert!(cut.starts_with("My code: ") && cut.contains(OMISSION) && cut.ends_with("Why does it fail?"), "{cut}");
        request.question_starts.clear();
        assert_eq!(shorten(&request, whole / 2, whole, false), None, "a message without offsets is not truncated");
    }

    proptest! {
        #[test]
        fn each_refusal_shortens_the_prompt(
            turns in proptest::collection::vec("[a-zé ]{0,60}", 1..12),
            lost in proptest::collection::vec("[a-zé ]{0,400}", 1..6),
            limit in 0_u32..500, is_last in any::<bool>(),
        ) {
            let mut request = conversation();
            request.messages.truncate(1);
            for turn in turns {
                request.messages.extend([message(PromptRole::User, &turn), message(PromptRole::Assistant, &turn)]);
            }
            request.question_starts.clear();
            let mut last = String::new();
            for question in &lost {
                request.question_starts.push(last.len());
                last.push_str(question);
                last.push_str("\n\n");
            }
            request.messages.push(message(PromptRole::User, &last));
            let mut refused = prompt_tokens(&request.messages);
            while let Some(shorter) = shorten(&request, limit, refused, is_last) {
                let size = prompt_tokens(&shorter);
                prop_assert!(size < refused);
                prop_assert_eq!(shorter[1].role, PromptRole::User);
                prop_assert_eq!(shorter.last().map(|message| message.role), Some(PromptRole::User));
                refused = size;
            }
        }
    }
}
