//! `Msvm_ConcreteJob`: the rules of `docs/semantics.md` §5.

use groupshot::cim::cimxml::parse_instance;
use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{DateTime, Instance, Path, Value};
use groupshot::engine::EngineErrorKind;
use groupshot::engine::sim::{Fault, Step, Trouble};
use groupshot::handler::Role;
use groupshot::provider::{Outcome, Status};

use super::world::{World, machine_id, number, output, reference, returned, text};

fn fault(trouble: Trouble) -> Fault {
    Fault {
        machine: machine_id(1),
        disk: None,
        step: Step::Cut,
        trouble,
        times: 1,
    }
}

/// A running job that hangs in its cut.
async fn hanging() -> (World, Path, Outcome) {
    let world = World::new(2).await;
    let group = world.group("web", &[1, 2]).await;
    let outcome = world.hanging(&group).await;
    let job = reference(&outcome, "Job");
    (world, job, outcome)
}

async fn ask(world: &World, job: &Path, state: u16) -> u64 {
    let arguments = [("RequestedState", state.into())];
    let outcome = world
        .call_as(&world.ctx(), job, "RequestStateChange", &arguments)
        .await;
    returned(&outcome.unwrap())
}

fn affected(world: &World, job: &Path) -> Vec<Path> {
    let links = world.all("Msvm_AffectedJobElement");
    links
        .iter()
        .filter(|l| l.get("AffectingElement").unwrap().as_reference() == Some(job))
        .map(|l| {
            l.get("AffectedElement")
                .unwrap()
                .as_reference()
                .unwrap()
                .clone()
        })
        .collect()
}

fn of_class(paths: &[Path], class: &str) -> usize {
    paths.iter().filter(|p| p.class == *class).count()
}

fn first_status(job: &Instance) -> u64 {
    let statuses = job.get("OperationalStatus").unwrap().as_array().unwrap();
    statuses[0].as_u64().unwrap()
}

#[tokio::test]
async fn a_job_reads_4_at_the_first_get_and_its_machines_are_linked() {
    let (world, path, outcome) = hanging().await;
    let job = world.get(&path).unwrap();
    assert_eq!(number(&job, "JobState"), 4);
    assert!(number(&job, "PercentComplete") < 100);
    assert_eq!(number(&job, "JobType"), 198);
    assert_eq!(text(&job, "Owner"), "admin");
    assert_eq!(job.get("Cancellable"), Some(&Value::Boolean(true)));
    assert!(!text(&job, "JobStatus").is_empty());
    // As long as the world keeps its jobs.
    let removal = job.get("TimeBeforeRemoval").unwrap();
    assert_eq!(
        removal,
        &Value::from(DateTime::parse("00000000001000.000000:000").unwrap())
    );
    for moment in ["StartTime", "TimeSubmitted", "TimeOfLastStateChange"] {
        let value = job.get(moment).unwrap();
        assert!(
            matches!(value, Value::DateTime(DateTime::Timestamp { .. })),
            "{moment}"
        );
    }
    assert!(matches!(
        job.get("ElapsedTime"),
        Some(Value::DateTime(DateTime::Interval { .. }))
    ));
    let linked = affected(&world, &path);
    assert_eq!(of_class(&linked, "Msvm_ComputerSystem"), 2);
    assert_eq!(linked.len(), 2);
    let machine = world.get(&linked[0]).unwrap();
    assert_eq!(
        machine.get("OperationalStatus"),
        Some(&Value::from(vec![2_u16, 32768]))
    );
    world.sim.release();
    world.ended(&outcome).await;
}

#[tokio::test]
async fn a_completed_job_links_exactly_its_set_and_its_machines() {
    let world = World::new(2).await;
    let group = world.group("web", &[1, 2]).await;
    let outcome = world.create(&group, 2, "").await;
    world.ended(&outcome).await;
    let path = reference(&outcome, "Job");
    let job = world.get(&path).unwrap();
    assert_eq!(number(&job, "JobState"), 7);
    assert_eq!(number(&job, "PercentComplete"), 100);
    assert_eq!(number(&job, "ErrorCode"), 0);
    assert_eq!(job.get("ErrorDescription"), Some(&Value::Null));
    assert_eq!(first_status(&job), 2);
    let linked = affected(&world, &path);
    assert_eq!(of_class(&linked, "Msvm_SnapshotCollection"), 1);
    assert_eq!(of_class(&linked, "Msvm_ComputerSystem"), 2);
    assert_eq!(linked.len(), 3);
    let set = reference(&outcome, "ResultingSnapshotCollection");
    let link = world
        .all("Msvm_AffectedJobElement")
        .into_iter()
        .find(|l| l.get("AffectedElement").unwrap().as_reference() == Some(&set));
    assert_eq!(
        link.unwrap().get("ElementEffects"),
        Some(&Value::from(vec![5_u16]))
    );
    let no_error = world.call_as(&world.ctx(), &path, "GetErrorEx", &[]).await;
    assert_eq!(output(&no_error.unwrap(), "Errors"), None);
}

#[tokio::test]
async fn a_failed_job_says_why_in_every_place() {
    let world = World::new(2).await;
    let group = world.group("web", &[1, 2]).await;
    world
        .sim
        .order(fault(Trouble::Fail(EngineErrorKind::Failed)));
    let outcome = world.create(&group, 1, "").await;
    world.ended(&outcome).await;
    let path = reference(&outcome, "Job");
    let job = world.get(&path).unwrap();
    assert_eq!(number(&job, "JobState"), 10);
    assert_ne!(number(&job, "ErrorCode"), 0);
    assert!(number(&job, "PercentComplete") < 100);
    assert!(!text(&job, "ErrorDescription").is_empty());
    assert!(!text(&job, "ErrorSummaryDescription").is_empty());
    assert_eq!(first_status(&job), 6);
    assert_eq!(
        of_class(&affected(&world, &path), "Msvm_SnapshotCollection"),
        0
    );

    let ctx = world.ctx();
    let errors = world.call_as(&ctx, &path, "GetErrorEx", &[]).await.unwrap();
    assert_eq!(returned(&errors), 0);
    let errors = output(&errors, "Errors").unwrap().as_array().unwrap();
    for error in errors {
        let error = error.as_str().unwrap();
        assert!(error.contains(r#"<PROPERTY NAME="ErrorSource""#), "{error}");
        assert!(error.contains(r#"<PROPERTY NAME="Message""#), "{error}");
        let parsed = parse_instance(&world.schema, VIRTUALIZATION_V2, error).unwrap();
        assert_eq!(parsed.class().name, "Msvm_Error");
        assert!(!text(&parsed, "Message").is_empty());
    }
    let first = world.call_as(&ctx, &path, "GetError", &[]).await.unwrap();
    assert_eq!(output(&first, "Error"), errors.first());
}

#[tokio::test]
async fn request_state_change_knows_terminate_and_kill() {
    for (state, ends) in [(4, 8), (5, 9)] {
        let (world, path, outcome) = hanging().await;
        for (asked, code) in [(2, 1), (3, 1), (6, 1), (1, 5), (7, 5), (32768, 5)] {
            assert_eq!(ask(&world, &path, asked).await, code, "{asked}");
        }
        let arguments = [
            ("RequestedState", Value::from(state)),
            (
                "TimeoutPeriod",
                DateTime::parse("00000000000001.000000:000").unwrap().into(),
            ),
        ];
        let timed = world
            .call_as(&world.ctx(), &path, "RequestStateChange", &arguments)
            .await;
        assert_eq!(returned(&timed.unwrap()), 4098);
        let kill = world.call_as(&world.ctx(), &path, "KillJob", &[]).await;
        assert_eq!(returned(&kill.unwrap()), 1);

        assert_eq!(ask(&world, &path, state).await, 4096);
        world.sim.release();
        world.ended(&outcome).await;
        let job = world.get(&path).unwrap();
        assert_eq!(number(&job, "JobState"), ends);
        assert_ne!(number(&job, "ErrorCode"), 0);
        assert_eq!(first_status(&job), 6);
        assert!(text(&job, "ErrorDescription").contains("admin"));
        assert_eq!(ask(&world, &path, state).await, 4097);
        assert!(world.all("Msvm_SnapshotCollection").is_empty());
    }
}

#[tokio::test]
async fn an_operator_ends_only_jobs_of_their_own() {
    let (world, path, outcome) = hanging().await;
    let arguments = [("RequestedState", 4_u16.into())];
    let stranger = world.ctx_of("eve", Role::Operator);
    let refused = world
        .call_as(&stranger, &path, "RequestStateChange", &arguments)
        .await;
    assert_eq!(refused.unwrap_err().status, Status::AccessDenied);
    let owner = world.ctx_of("admin", Role::Operator);
    let accepted = world
        .call_as(&owner, &path, "RequestStateChange", &arguments)
        .await;
    assert_eq!(returned(&accepted.unwrap()), 4096);
    world.sim.release();
    world.ended(&outcome).await;
}
