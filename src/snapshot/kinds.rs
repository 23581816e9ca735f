//! The kinds of operation: the one list of them.

use crate::snapshot::apply::Apply;
use crate::snapshot::create::Create;
use crate::snapshot::destroy::Destroy;
use crate::snapshot::export::Export;
use crate::snapshot::saga::story::{Kinds, Registered};

/// Each of them; a journal names its own.
pub(crate) const KINDS: Kinds = &[
    Registered::of::<Create>(),
    Registered::of::<Apply>(),
    Registered::of::<Export>(),
    Registered::of::<Destroy>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Ending;
    use crate::snapshot::saga::journal::Line;
    use crate::snapshot::saga::kind::{Kind, Work, points};
    use crate::snapshot::saga::recovery::{Past, read_story};
    use crate::snapshot::saga::story::{self, Record, abort, intent_of};

    /// Of a set with a member that runs.
    const WINDOW: &str = include_str!("../../fixtures/journals/create-window.jsonl");

    const JOURNALS: [&str; 4] = [
        include_str!("../../fixtures/journals/create.jsonl"),
        include_str!("../../fixtures/journals/apply.jsonl"),
        include_str!("../../fixtures/journals/export.jsonl"),
        include_str!("../../fixtures/journals/destroy.jsonl"),
    ];

    fn lines(text: &str) -> Vec<Line> {
        let lines = text.lines();
        let lines = lines.map(|line| Line::checked(line.to_owned()).unwrap());
        lines.collect()
    }

    fn undone() -> Line {
        let text = include_str!("../../fixtures/journals/abort.jsonl");
        lines(text).remove(0)
    }

    /// Whether it goes forward after each of its records, once it is sure that these are written as they were read.
    fn forward<K: Kind>(text: &str) -> Vec<bool> {
        let lines = lines(text);
        let intent: K::Intent = lines[0].read().unwrap();
        assert_eq!(intent_of(&K::new(intent.clone())).unwrap(), lines[0]);
        let mut records = Vec::<Record<K::Record>>::new();
        let mut ways = Vec::new();
        for n in 0..lines.len() {
            if let Some(line) = lines.get(n).filter(|_| n > 0) {
                let record: K::Record = line.read().unwrap();
                // A file may be told more exactly than then; what decides is written as it was.
                let now = Line::of(&record).unwrap();
                assert_eq!(Line::of(&now.read::<K::Record>().unwrap()).unwrap(), now);
                assert!(now == *line || !K::commits(&record), "{now:?}");
                records.push(Record::Own(record));
            }
            let back = read_story(&mut K::new(intent.clone()), records.clone());
            ways.push(back.is_none());
            let mut aborted = records.clone();
            aborted.push(Record::read(&undone()).unwrap());
            assert_eq!(
                read_story(&mut K::new(intent.clone()), aborted)
                    .unwrap()
                    .code,
                32768
            );
        }
        ways
    }

    #[test]
    fn a_journal_is_read_and_written_as_before_there_were_kinds() {
        let [create, apply, export, destroy] = JOURNALS;
        assert_eq!(forward::<Create>(create), [false, false, true]);
        assert_eq!(forward::<Create>(WINDOW), [false, false, true]);
        assert_eq!(forward::<Apply>(apply), [false, true]);
        assert_eq!(forward::<Export>(export), [false, false, true]);
        assert_eq!(forward::<Destroy>(destroy), [true, true, true]);
        match Record::<()>::read(&undone()).unwrap() {
            Record::Abort(error) => assert_eq!(abort(error).unwrap(), undone()),
            Record::Own(()) => panic!("no abort"),
        }
    }

    #[test]
    fn each_kind_is_found_by_the_name_in_its_journal() {
        for (text, told) in JOURNALS.iter().zip([
            "create of snapshot set ",
            "apply of snapshot set ",
            "export of snapshot set ",
            "destroy of snapshot set ",
        ]) {
            let lines = lines(text);
            for n in 1..=lines.len() {
                let story = story::read(KINDS, &lines[..n]).unwrap();
                assert!(story.told().starts_with(told), "{}", story.told());
                assert!(text.contains(&format!("\"job\":\"{}\"", story.job())));
            }
            let mut mixed = lines.clone();
            mixed.push(lines[0].clone());
            assert!(story::read(KINDS, &mixed).is_err());
            let first = text.lines().next().unwrap();
            let other = first.replacen("\"kind\":\"", "\"kind\":\"other-", 1);
            let other = [Line::checked(other).unwrap()];
            assert!(story::read(KINDS, &other).is_err());
        }
    }

    #[test]
    fn a_destroy_that_was_cancelled_behind_its_commit_has_ended_for_good() {
        let [_, apply, _, destroy] = JOURNALS.map(|text| story::read(KINDS, &lines(text)).unwrap());
        let of = |outcome| [destroy.past(outcome), apply.past(outcome)];
        assert_eq!(of(Ending::Completed), [Past::Published; 2]);
        assert_eq!(of(Ending::Cancelled), [Past::Published, Past::Over]);
        assert_eq!(of(Ending::Failed), [Past::Over; 2]);
    }

    /// The last step of `TAKE` writes a record, and `FINISH` publishes once and ends with the removal of the journal.
    #[test]
    fn the_steps_of_each_kind_and_its_fail_points_fit_together() {
        fn assert_fits<K: Kind>(first: &str, last: &str) {
            let commit = K::TAKE
                .last()
                .is_none_or(|s| matches!(s.work, Work::Record(_)));
            let clear = K::FINISH
                .last()
                .is_some_and(|s| matches!(s.work, Work::Clear));
            let publish = K::FINISH.iter().filter(|s| matches!(s.work, Work::Publish));
            assert!(commit && clear && publish.count() == 1, "{}", K::NAME);
            let points = points::<K>();
            assert_eq!(
                points.first(),
                Some(&format!("{}.{first}", K::NAME).as_str())
            );
            assert_eq!(points.last(), Some(&format!("{}.{last}", K::NAME).as_str()));
            let steps = K::TAKE.len() + K::FINISH.len();
            let undo = if K::TAKE.is_empty() { 0 } else { 4 };
            assert_eq!(points.len(), 3 + 2 * steps + undo);
        }
        assert_fits::<Create>("intent.before", "undone.after");
        assert_fits::<Apply>("intent.before", "undone.after");
        assert_fits::<Export>("intent.before", "undone.after");
        assert_fits::<Destroy>("intent.before", "clear.after");
    }
}
