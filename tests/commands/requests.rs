//! How often the commands ask: the number of requests must not grow with what can be asked for at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::server::Server;

use super::{json, ok, said};

/// Stands between client and server and keeps what the client says.
struct Between {
    url: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Between {
    fn new(server: &Server) -> Self {
        let to: SocketAddr = server.address;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/wsman", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
                let (answers, back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || pass(answers, back, |_| {}));
                let all = all.clone();
                thread::spawn(move || pass(client, server, |b| all.lock().unwrap().extend(b)));
            }
        });
        Self { url, heard }
    }

    /// What the command says, and how often it asks for all of a class.
    fn run(&self, server: &Server, args: &[&str]) -> (Output, usize) {
        self.heard.lock().unwrap().clear();
        let output = server.cli(&[args, &["--url", &self.url]].concat());
        let heard = self.heard.lock().unwrap();
        let heard = String::from_utf8_lossy(&heard);
        (output, heard.matches("enumeration/Enumerate<").count())
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut hear: impl FnMut(&[u8])) -> Option<io::Error> {
    let mut bytes = [0; 8192];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return to.shutdown(Shutdown::Write).err(),
            Ok(n) => {
                hear(&bytes[..n]);
                if let Err(e) = to.write_all(&bytes[..n]) {
                    return Some(e);
                }
            }
            Err(e) => return Some(e),
        }
    }
}

#[test]
fn members_are_looked_up_with_one_question_however_many_they_are() {
    let server = Server::start(&["--engine", "sim", "--machines", "8"]);
    let between = Between::new(&server);
    let names: Vec<String> = (1..=8).map(|n| format!("sim-{n:06}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let create = [&["collection", "create", "web"], &names[..6]].concat();
    let (output, all) = between.run(&server, &create);
    assert!(ok(&output).contains("6 members"), "{}", said(&output));
    assert_eq!(all, 2, "the collections, for the name, and the machines");
    let add = [&["collection", "add", "web"], &names[6..]].concat();
    let (output, all) = between.run(&server, &add);
    ok(&output);
    assert_eq!(all, 2, "the collections and the machines");
}

#[test]
fn a_set_is_shown_by_few_questions_however_many_members_it_has() {
    let server = Server::start(&["--engine", "sim", "--machines", "9"]);
    let between = Between::new(&server);
    let names: Vec<String> = (1..=8).map(|n| format!("sim-{n:06}")).collect();
    for (name, members) in [("two", &names[..2]), ("eight", &names[..])] {
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        ok(&server.cli(&[&["collection", "create", name], &members[..]].concat()));
        ok(&server.cli(&["snapshot", "create", name, "--name", name]));
        let (output, asked) = between.run(&server, &["snapshot", "show", name, "--json"]);
        let shown = json(&output);
        let shown = shown["members"].as_array().unwrap();
        assert_eq!(shown.len(), members.len());
        for (member, name) in shown.iter().zip(members) {
            assert_eq!(member["name"], name);
            let file = member["files"][0]["file"].as_str().unwrap();
            assert!(file.contains(member["machine"].as_str().unwrap()), "{file}");
            assert_eq!(member["files"].as_array().unwrap().len(), 1);
        }
        // The sets, the members, then machines and disks: of two members for each, of eight for all.
        assert_eq!(asked, if shown.len() == 2 { 6 } else { 4 }, "{name}");
        let heard = between.heard.lock().unwrap();
        assert!(!String::from_utf8_lossy(&heard).contains("transfer/Get<"));
    }
}

#[test]
fn a_deleted_collection_names_the_groups_that_lost_it() {
    let server = Server::start(&["--engine", "sim", "--machines", "1"]);
    ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
    ok(&server.cli(&["collection", "create", "db"]));
    let made = json(&server.cli(&["collection", "create", "all", "web", "--groups", "--json"]));
    let said_of = |name| said(&server.cli(&["collection", "delete", name]));
    let line = format!("was a member of `all` {}", made["id"].as_str().unwrap());
    let (other, member) = (said_of("db"), said_of("web"));
    assert!(!other.contains("member of"), "{other}");
    assert!(member.contains(&line), "{member}");
}
