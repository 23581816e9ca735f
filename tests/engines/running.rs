//! The contract of a machine that runs: what the window of a set and its recovery may ask of it, again and again.

use groupshot::engine::sim::{Sim, machine_id};
use groupshot::engine::{Capture, Compute, Event, Live, Plan, QuiesceError, Running};
use groupshot::id::SetId;
use groupshot::inventory::RunState;
use jiff::Timestamp;

#[tokio::test]
async fn the_simulation_keeps_the_contract_of_a_machine_that_runs() {
    let id = machine_id(1);
    for takes in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let sim = Sim::new(dir.path(), 1, Timestamp::UNIX_EPOCH).unwrap();
        assert!(sim.running(id).is_none(), "it is off");
        sim.set_state(id, RunState::Running);
        sim.set_agent(id, true);
        sim.set_taker(id, takes);
        let machine = sim.machine(id).unwrap();
        let plan = sim.plan(
            &machine,
            &machine.disks[0],
            SetId::from_u128(1),
            Some(Live::default()),
        );
        let plan = plan.unwrap().unwrap();
        sim.prepare(&plan).unwrap();
        let it = sim.running(id).unwrap();
        assert_eq!(it.takes(&plan), takes);
        keeps_the_contract(&*it, &*sim, &plan).await;
        sim.set_state(id, RunState::Off);
        assert!(it.describe().await.is_err(), "nothing runs it any more");
        assert!(sim.running(id).is_none());
    }
}

async fn keeps_the_contract(it: &dyn Running, storage: &dyn Capture, plan: &Plan) {
    let taken: &[&Plan] = match it.takes(plan) {
        true => &[plan],
        false => &[],
    };
    let told = it.describe().await.unwrap();
    assert_eq!((told.state, told.agent), (RunState::Running, true));
    assert_eq!(told.graph["disk0"].file, plan.disk.file);
    let mut events = it.events();
    it.detach(taken).await.unwrap();
    for _ in 0..2 {
        it.attach(taken).await.unwrap();
    }
    // A guest is frozen once; what is frozen is thawed as often as one likes.
    assert!(it.quiesce().await.unwrap().count > 0);
    assert!(matches!(
        it.quiesce().await,
        Err(QuiesceError::Untouched(_))
    ));
    assert!(it.is_frozen().await.unwrap());
    // Nothing is captured while it runs.
    assert!(capture(it, storage, plan, taken).await.is_err());
    for before in [RunState::Running, RunState::Paused] {
        let stopped = it.stop().await.unwrap();
        assert_eq!(stopped, (before, told.graph.clone()));
    }
    assert_eq!(it.describe().await.unwrap().state, RunState::Paused);
    assert!(it.is_frozen().await.is_err(), "the agent does not run");
    for _ in 0..2 {
        capture(it, storage, plan, taken).await.unwrap();
    }
    for _ in 0..2 {
        it.resume().await.unwrap();
    }
    for _ in 0..2 {
        it.thaw().await.unwrap();
        assert!(!it.is_frozen().await.unwrap());
    }
    let told = it.describe().await.unwrap();
    assert_eq!(told.state, RunState::Running);
    assert!(events.try_recv().is_err(), "nobody else was there");
    storage.settle(plan).unwrap(); // it is captured
    for _ in 0..2 {
        it.detach(taken).await.unwrap();
        storage.undo(plan).unwrap();
    }
    assert!(storage.settle(plan).is_err(), "it is gone");
}

async fn capture(
    it: &dyn Running,
    storage: &dyn Capture,
    plan: &Plan,
    taken: &[&Plan],
) -> Result<(), groupshot::engine::EngineError> {
    match taken {
        [] => storage.cut(plan),
        taken => it.cut(taken).await,
    }
}

#[tokio::test]
async fn what_somebody_else_does_is_told() {
    use groupshot::engine::sim::{Fault, Step, Trouble};
    let dir = tempfile::tempdir().unwrap();
    let sim = Sim::new(dir.path(), 1, Timestamp::UNIX_EPOCH).unwrap();
    let id = machine_id(1);
    sim.set_state(id, RunState::Running);
    let it = sim.running(id).unwrap();
    let mut events = it.events();
    let order = |trouble| {
        sim.order(Fault {
            machine: id,
            disk: None,
            step: Step::Stop,
            trouble,
            times: 1,
        });
    };
    order(Trouble::Resumed);
    it.stop().await.unwrap();
    assert_eq!(events.try_recv(), Ok(Event::Resumed));
    assert_eq!(sim.state(id), RunState::Running);
    order(Trouble::Dies);
    it.stop().await.unwrap_err();
    assert_eq!(events.try_recv(), Ok(Event::ShutDown));
    assert_eq!(sim.state(id), RunState::Off);
}
