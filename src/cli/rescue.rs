//! `groupshot rescue`: ends what operations in flight left, without a server.

use clap::Args;
use serde_json::{Value as Json, json};

use crate::server::{self, Rescued};
use crate::snapshot::InFlight;

use super::failure::Failure;
use super::local::{ConfigFile, DataDir};
use super::output::{Output, count};
use super::remote::block_on;

/// Finishes or undoes them as a start of the server would, and says what became of each. No server may run
/// meanwhile.
#[derive(Debug, Args)]
pub(super) struct Rescue {
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(wish: &Rescue, output: &Output) -> Result<(), Failure> {
    let (data_dir, config) = (wish.data.path()?, wish.config.load()?);
    let found = block_on(async { Ok(server::rescue(&data_dir, &config).await?) })?;
    output.result(fields(&found), || in_words(&found))?;
    let unknown = found.unknown();
    match found.recovered.stuck.len() {
        0 if unknown.is_empty() => Ok(()),
        0 => Err(Failure::failed(format_args!(
            "what {} does now is not known ({}); see that it runs",
            count(unknown.len(), "machine"),
            unknown.join(", ")
        ))),
        stuck => Err(Failure::failed(format_args!(
            "{} cannot be ended now; put right what it says and run it again",
            count(stuck, "operation")
        ))),
    }
}

fn fields(
    Rescued {
        recovered: found,
        states,
    }: &Rescued,
) -> Json {
    let states = states.iter();
    let states = states.map(|(name, state)| json!({"machine": name, "state": state.word()}));
    let of = |it: &InFlight| json!({"kind": it.kind, "set": it.set.to_string(), "job": it.job.to_string(), "machines": it.machines});
    let stuck = found.stuck.iter().map(|stuck| {
        let mut object = of(&stuck.operation);
        if let Json::Object(object) = &mut object {
            object.insert("why".to_owned(), stuck.why.english().into());
        }
        object
    });
    let jobs = found.ended.iter().map(ToString::to_string);
    json!({
        "finished": found.finished.iter().map(of).collect::<Vec<_>>(),
        "undone": found.undone.iter().map(of).collect::<Vec<_>>(),
        "stuck": stuck.collect::<Vec<_>>(),
        "lostJobs": jobs.collect::<Vec<_>>(),
        "states": states.collect::<Vec<_>>(),
    })
}

fn in_words(
    Rescued {
        recovered: found,
        states,
    }: &Rescued,
) -> String {
    let mut text = String::new();
    let mut tell = |it: &InFlight, end: &str, machines: &str| {
        text += &format!("{} of set {}, job {}: {end}\n", it.kind, it.set, it.job);
        for machine in &it.machines {
            let state = states.get(machine).map_or("not known", |it| it.word());
            text += &format!("  machine {machine}: {machines}, {state}\n");
        }
    };
    for it in &found.finished {
        tell(it, finished(it.kind), "let go");
    }
    for it in &found.undone {
        tell(it, undone(it.kind), "let go");
    }
    for stuck in &found.stuck {
        let why = format!("cannot be ended now: {}", stuck.why.english());
        tell(&stuck.operation, &why, "still held by it");
    }
    for job in &found.ended {
        text += &format!("job {job}: nothing tells how far it came; ended as failed\n");
    }
    match text.is_empty() {
        true => "nothing was left in flight".to_owned(),
        false => text,
    }
}

fn finished(kind: &str) -> &'static str {
    match kind {
        "create" => "finished, the set is complete",
        "apply" => "finished, every disk holds what the set holds",
        "export" => "finished, the export is whole",
        "destroy" => "finished, the snapshots and their files are gone",
        _ => "finished",
    }
}

fn undone(kind: &str) -> &'static str {
    match kind {
        "create" => "undone, there is no such set",
        "apply" => "undone, every disk is as before",
        "export" => "undone, what was written is removed",
        _ => "undone",
    }
}
