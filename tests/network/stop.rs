//! SIGTERM: what runs may end, for so long; then the next start goes on with it.

use super::*;

/// A server in which a job stands in the middle, until the gate is opened.
fn with_a_job(config: &str) -> (Run, SocketAddr, Gate) {
    let gate = Gate::new();
    let server = Run::start(config, |command| {
        command.env("GROUPSHOT_FAILPOINTS", gate.at("create.prepared.after"));
    });
    let address = server.address("http");
    let url = format!("http://{address}/wsman");
    let cli = |args: &[&str]| {
        let out = Command::new(binary())
            .args(args)
            .env("GROUPSHOT_URL", &url)
            .env("GROUPSHOT_USER", USER)
            .env("GROUPSHOT_PASSWORD", PASSWORD)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let machines = enumerate("Msvm_ComputerSystem");
    assert_eq!(ask(address, USER, &machines).status, 200);
    cli(&["collection", "create", "all", "sim-000001"]);
    cli(&["snapshot", "create", "all", "--no-wait"]);
    gate.reached();
    (server, address, gate)
}

#[test]
fn a_job_that_runs_is_waited_for_and_told_of() {
    let (mut server, address, gate) = with_a_job("");
    server.signal(Signal::SIGTERM);
    until("it says what it waits for", || {
        server.said().contains("and 1 job")
    });
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "nobody is let in"
    );
    gate.open();
    let status = server.wait(Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.said());
    assert!(
        !server.said().contains("Left to the next start"),
        "{}",
        server.said()
    );
}

#[test]
fn a_job_that_takes_too_long_is_left_to_the_next_start() {
    let (mut server, _, _gate) = with_a_job("[limits]\nstop_timeout = \"1s\"\n");
    let begun = Instant::now();
    server.signal(Signal::SIGINT);
    let status = server.wait(Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.said());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(
        server.said().contains("Left to the next start"),
        "{}",
        server.said()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut server, _, _gate) = with_a_job("[limits]\nstop_timeout = \"10m\"\n");
    server.signal(Signal::SIGTERM);
    until("it stops", || server.said().contains("Waiting for"));
    server.signal(Signal::SIGTERM);
    let status = server.wait(Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", server.said());
    assert!(server.said().contains("second signal"), "{}", server.said());
}
