//! `groupshot relocate`: after the data directory or image folders were moved.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::engine::relocate::{Move, Moves};
use crate::server::{self, Differing, Here, HereState, Relocated, Relocation};

use super::failure::{Exit, Failure};
use super::local::DataDir;
use super::output::{Output, can_ask, confirm, count};
use super::remote::block_on;

/// Without --apply only tells what would be written. No server may run meanwhile.
#[derive(Debug, Args)]
pub(super) struct Relocate {
    #[command(flatten)]
    data: DataDir,
    /// The server's configuration file, for its image_roots.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder that was moved, as recorded paths name it. May be repeated, each with its --to.
    #[arg(long, value_name = "OLD")]
    from: Vec<PathBuf>,
    /// Where it is now; the data directory if there is one --from and no --to.
    #[arg(long, value_name = "NEW")]
    to: Vec<PathBuf>,
    /// Write the new paths into the machines' vm.toml too; all else in them stays.
    #[arg(long)]
    definitions: bool,
    /// Write, or finish what was begun.
    #[arg(long)]
    apply: bool,
    /// The data directory was copied or restored, and its paths lead into it: check every file and bind it here.
    #[arg(long, conflicts_with_all = ["from", "to", "definitions", "config"])]
    here: bool,
    /// Frozen files that are copies of what is recorded, by owner, length and time, count as that from now on. Else each is
    /// asked for.
    #[arg(long)]
    accept_copied: bool,
    /// Files that were changed or are not there keep nothing from being bound; they go on being told.
    #[arg(long, requires = "here")]
    accept_damaged: bool,
}

pub(super) fn run(wish: &Relocate, output: &Output) -> Result<(), Failure> {
    // It may be readable for whoever calls, and not for the owner of the data directory.
    let config = wish.config.as_deref().map(Config::load).transpose()?;
    let data_dir = wish.data.path()?;
    if wish.here {
        return here(wish, &data_dir, output);
    }
    let roots = config.unwrap_or_default().engine.image_roots;
    let moves = Moves::new(moves(wish, &data_dir)?).map_err(Failure::usage)?;
    let confirmed = |d: &Differing| confirmed(wish, d);
    let told = block_on(async {
        let how = (wish.definitions, wish.apply);
        let done = server::relocate(&data_dir, &moves, &roots, how, &confirmed);
        Ok(done.await?)
    })?;
    if told.state == Relocation::Unasked {
        return Err(Failure::usage(
            "nothing was begun before: --from says which folder was moved",
        ));
    }
    for note in told.notes.iter().chain(&told.problems) {
        output.note(note);
    }
    output.result(fields(&told), || in_words(&told))?;
    match (told.problems.len(), told.unconfirmed) {
        (0, 0) => Ok(()),
        (0, files) => Err(Failure::failed(format_args!(
            "{} not confirmed, nothing is written: say --accept-copied for copies",
            count(files, "file")
        ))),
        (problems, _) => Err(in_the_way(problems, told.astray)),
    }
}

/// Whether the operator has said, or says now, that it may be taken.
fn confirmed(wish: &Relocate, d: &Differing) -> bool {
    let (accepted, what) = match d.copied {
        Some(_) => (wish.accept_copied, "Take it as the file that is recorded"),
        None => (wish.accept_damaged, "Go on without it"),
    };
    let question = || format!("{}: {}: {}. {what}?", d.whose, d.file.display(), d.how);
    accepted || (can_ask() && confirm(&question()).unwrap_or(false))
}

/// `astray`: paths lead to another data directory, or to what another one names too.
fn in_the_way(problems: usize, astray: bool) -> Failure {
    let exit = match astray {
        true => Exit::Config,
        false => Exit::Failed,
    };
    let things = count(problems, "thing");
    Failure::new(
        exit,
        format_args!("{things} in the way; nothing is written"),
    )
}

fn here(wish: &Relocate, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let confirmed = |d: &Differing| confirmed(wish, d);
    let told = block_on(async { Ok(server::here(data_dir, wish.apply, &confirmed).await?) })?;
    for note in told.notes.iter().chain(&told.problems) {
        output.note(note);
    }
    let fields = json!({
        "applied": told.state == HereState::Done,
        "id": told.id.map(|id| id.to_string()),
        "found": told.found,
        "differing": differing(&told.differing),
        "problems": told.problems,
        "notes": told.notes,
    });
    output.result(fields, || here_in_words(&told))?;
    match (told.problems.len(), told.unconfirmed) {
        (0, 0) => Ok(()),
        (0, files) => Err(Failure::failed(format_args!(
            "{} not confirmed, nothing is written: say --accept-copied for copies, --accept-damaged for what was changed or is not there",
            count(files, "file")
        ))),
        (problems, _) => Err(in_the_way(problems, true)),
    }
}

fn differing(files: &[Differing]) -> Vec<Json> {
    let of = |d: &Differing| {
        let copied = d.copied.is_some();
        json!({"whose": d.whose, "file": d.file, "how": d.how, "copied": copied})
    };
    files.iter().map(of).collect()
}

fn differing_in_words(files: &[Differing]) -> String {
    let line = |d: &Differing| {
        let kind = match d.copied {
            Some(_) => "a copy",
            None => "not as recorded",
        };
        format!("{}: {}: {kind}: {}\n", d.whose, d.file.display(), d.how)
    };
    files.iter().map(line).collect()
}

fn here_in_words(told: &Here) -> String {
    let files = differing_in_words(&told.differing);
    let end = match (told.state, &told.id) {
        (HereState::Bound, None) => "it has no id yet: the next start gives it one".to_owned(),
        (HereState::Bound, Some(id)) => format!("it is bound here already, as {id}"),
        (HereState::Done, id) => {
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            format!("bound here, as {id}")
        }
        (HereState::Planned, _) if !told.problems.is_empty() || told.unconfirmed > 0 => {
            told.found.clone()
        }
        (HereState::Planned, _) => {
            format!("{}; nothing is written yet: say --apply", told.found)
        }
    };
    format!("{files}{end}")
}

/// Each folder with its new place.
fn moves(wish: &Relocate, data_dir: &Path) -> Result<Vec<Move>, Failure> {
    let real = data_dir.canonicalize().unwrap_or(data_dir.to_owned());
    let to = match (wish.from.as_slice(), wish.to.as_slice()) {
        ([_], []) => vec![real.clone()],
        (from, to) if from.len() == to.len() => to.to_vec(),
        _ => {
            return Err(Failure::usage(
                "each --from needs its --to, in the same order",
            ));
        }
    };
    let mut moves = Vec::new();
    for (from, to) in wish.from.iter().zip(to) {
        let (from, to) = (std::path::absolute(from)?, std::path::absolute(to)?);
        let arrived = to
            .canonicalize()
            .map_err(|e| Failure::failed(format_args!("--to {}: {e}", to.display())))?;
        // Our own files are known by the real path of the data directory.
        let to = if arrived == real { arrived } else { plain(&to) };
        let from = plain(&from);
        if from != to {
            moves.push(Move { from, to });
        }
    }
    match moves.is_empty() && !wish.from.is_empty() {
        true => Err(Failure::usage("--from and --to are the same folder")),
        false => Ok(moves),
    }
}

/// Without a slash at its end.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn fields(told: &Relocated) -> Json {
    let moves = told
        .moves
        .iter()
        .map(|m| json!({"from": m.from, "to": m.to}));
    let changes = told.changes.iter();
    let changes = changes.map(|(what, to)| json!({"what": what, "to": to}));
    let yours = told.yours.iter().map(|d| {
        json!({"file": d.definition, "line": d.line, "disk": d.disk, "from": d.from, "to": d.to})
    });
    json!({
        "applied": told.state == Relocation::Done,
        "moves": moves.collect::<Vec<_>>(),
        "changes": changes.collect::<Vec<_>>(),
        "definitions": yours.collect::<Vec<_>>(),
        "differing": differing(&told.differing),
        "problems": told.problems,
        "notes": told.notes,
    })
}

fn in_words(told: &Relocated) -> String {
    let line = |(what, to): &(String, PathBuf)| format!("{what}: {}\n", to.display());
    let mut text: String = told.changes.iter().map(line).collect();
    if !told.yours.is_empty() {
        text += "\nYours to change, or say --definitions:\n";
    }
    for line in &told.yours {
        text += &format!(
            "{}:{}: {} is {} now\n",
            line.definition.display(),
            line.line,
            line.from.display(),
            line.to.display()
        );
    }
    text += &differing_in_words(&told.differing);
    let paths = count(told.changes.len(), "path");
    let end = match (told.state, told.changes.is_empty()) {
        (_, true) => "the server's own records name nothing in the old place".to_owned(),
        (Relocation::Done, _) => format!("{paths} written"),
        (Relocation::Begun, _) => {
            format!("{paths} were begun to be written: say --apply to finish")
        }
        _ => format!("{paths} to write, nothing is written yet: say --apply"),
    };
    format!("{text}{}{end}", if text.is_empty() { "" } else { "\n" })
}
