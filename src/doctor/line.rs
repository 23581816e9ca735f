//! How a running server is asked: one JSON object a line each way over a socket in the data directory.
//!
//! ```json
//! {"version":1,"do":"look"}
//! {"version":1,"findings":[…]}
//! {"version":1,"do":"fix","kind":"orphan","object":"…"}
//! {"version":1,"do":"fix","kind":"pending-merge","object":"…","progress":true}
//! {"version":1,"do":"history","failed":true,"limit":50}
//! {"version":1,"do":"unlock","user":"otto"}
//! {"version":1,"do":"renew"}
//! {"version":1,"do":"remove","machine":"…"}
//! {"version":1,"done":"moved to …"}        or {"version":1,"error":"…"}
//! ```
//!
//! Who wants progress is told it in lines of its own before the answer: `{"version":1,"progress":{"percent":40,"text":"…"}}`.
//!
//! The socket is of mode 0600, and whoever connects must be root or the server's own user. It is reached through a
//! descriptor of its folder, so the path of the data directory may be of any length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, network};
use crate::doctor::{Doctor, Finding, Kind};
use crate::held::{Folder, Identity};
use crate::id::VmId;
use crate::inventory::{Ended, Query};
use crate::store;

const VERSION: u32 = 1;
const SOCKET: &str = "groupshot.sock";
/// Longest request, bytes.
const LONGEST: u64 = 64 << 10;
/// Longest answer that is read, bytes.
const LONGEST_ANSWER: u64 = 64 << 20;
/// Requests that are answered at the same time.
const AT_ONCE: usize = 16;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u32,
    #[serde(flatten)]
    wish: Wish,
}

/// What is wished for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Wish {
    /// Everything that is found.
    Look,
    /// One repair.
    Fix {
        /// Of this kind.
        kind: Kind,
        /// The object of the finding.
        object: String,
        /// Whether its progress is to be told.
        #[serde(default)]
        progress: bool,
    },
    /// How operations ended.
    History(Query),
    /// Ends lock-outs.
    Unlock(Unlock),
    /// That the library is read again at once: something was changed there.
    Renew,
    /// That a machine leaves the library.
    Remove {
        /// Which one.
        machine: VmId,
    },
}

/// Which lock-outs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unlock {
    /// Those of this user, at all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That of this address, and those of all users at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// How far a repair is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// In hundredths.
    pub percent: u8,
    /// What it is at, in words.
    pub text: String,
}

/// Where the progress of a repair is told; the newest counts.
pub type Tell = watch::Sender<Option<Progress>>;

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    version: u32,
    #[serde(flatten)]
    answer: Answer,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What was found.
    Findings(Vec<Finding>),
    /// How operations ended, the newest first.
    History(Vec<Ended>),
    /// The addresses at which something was locked out.
    Unlocked(Vec<String>),
    /// How far it is; the answer is still to come.
    Progress(Progress),
    /// What was done.
    Done(String),
    /// Why not.
    Error(String),
}

impl Doctor {
    /// Does what is wished, and tells how far it is.
    pub async fn answer(self: &Arc<Self>, wish: Wish, tell: &Tell) -> Answer {
        match wish {
            Wish::Look => Answer::Findings(self.look().await),
            Wish::Fix { kind, object, .. } => match self.fix(kind, &object, tell).await {
                Ok(done) => Answer::Done(done),
                Err(why) => Answer::Error(why),
            },
            Wish::History(query) => {
                let deps = &self.deps;
                match store::look_back(&*deps.store, &query, deps.clock.now()).await {
                    Ok(found) => Answer::History(found),
                    Err(error) => Answer::Error(error.to_string()),
                }
            }
            Wish::Unlock(wish) => match &self.deps.logons {
                Some(logons) => Answer::Unlocked(unlock(logons, &wish)),
                None => Answer::Unlocked(Vec::new()),
            },
            Wish::Renew => {
                let doctor = Arc::clone(self);
                let renewed = tokio::task::spawn_blocking(move || drop((doctor.deps.library)()));
                match renewed.await {
                    Ok(()) => Answer::Done("the library was read again".to_owned()),
                    Err(error) => Answer::Error(error.to_string()),
                }
            }
            Wish::Remove { machine } => match self.remove(machine).await {
                Ok(()) => Answer::Done(format!("machine {machine} removed")),
                Err(why) => Answer::Error(why),
            },
        }
    }
}

fn unlock(logons: &Authenticator, wish: &Unlock) -> Vec<String> {
    let mut opened = Vec::new();
    if let Some(user) = &wish.user {
        opened.extend(logons.unlock(user).iter().map(ToString::to_string));
    }
    if let Some(address) = wish.address
        && logons.unlock_address(address)
    {
        opened.push(network(address).to_string());
    }
    opened
}

/// The socket of a server, open. Removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: tokio::net::UnixListener,
    folder: Folder,
    /// What it was made as.
    made: Identity,
}

impl Socket {
    /// Opens the socket of the data directory, which nobody else serves: one that is there is of a dead process.
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = Folder::follow(data_dir)?;
        let (listener, made) = folder.listen(SOCKET, 0o600)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Ok(Self {
            listener,
            folder,
            made,
        })
    }

    /// Answers until `stop`: a repair that takes long keeps nobody else waiting.
    pub async fn serve(self, doctor: Arc<Doctor>, stop: CancellationToken) {
        let mut talks = JoinSet::new();
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                // No descriptor left, as a rule.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            while talks.len() >= AT_ONCE
                && stop.run_until_cancelled(talks.join_next()).await.is_some()
            {}
            while talks.try_join_next().is_some() {}
            let doctor = Arc::clone(&doctor);
            talks.spawn(async move {
                if let Err(error) = talk(stream, &doctor).await {
                    tracing::debug!(%error, "A check-up was not asked for to the end");
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.folder.remove_socket(SOCKET, &self.made);
    }
}

async fn talk(stream: tokio::net::UnixStream, doctor: &Arc<Doctor>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (from, mut to) = stream.into_split();
    let mut line = String::new();
    let mut from = tokio::io::BufReader::new(from.take(LONGEST));
    tokio::time::timeout(PATIENCE, from.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) if request.version == VERSION => carry_out(request.wish, doctor, &mut to).await,
        Ok(request) => Answer::Error(format!(
            "this server speaks version {VERSION} of the check-up, not {}",
            request.version
        )),
        Err(error) => Answer::Error(format!("the request makes no sense: {error}")),
    };
    say(&mut to, answer).await?;
    to.shutdown().await
}

/// Has it done; tells how far it is meanwhile, if that is wanted and as long as somebody hears it.
async fn carry_out(wish: Wish, doctor: &Arc<Doctor>, to: &mut OwnedWriteHalf) -> Answer {
    let wanted = matches!(wish, Wish::Fix { progress: true, .. });
    let (tell, mut told) = watch::channel(None);
    let working = async move {
        let answer = doctor.answer(wish, &tell).await;
        drop(tell);
        answer
    };
    // Beside the work: whoever does not read holds up nothing but what is told.
    let telling = async {
        while wanted && told.changed().await.is_ok() {
            let now = told.borrow_and_update().clone();
            if let Some(now) = now {
                say(to, Answer::Progress(now)).await?;
            }
        }
        Ok::<_, io::Error>(())
    };
    let (answer, _heard) = tokio::join!(working, telling);
    answer
}

async fn say(to: &mut OwnedWriteHalf, answer: Answer) -> io::Result<()> {
    let reply = Reply {
        version: VERSION,
        answer,
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, to.write_all(&line)).await?
}

/// Asks the server of a data directory. Blocks until it has answered, and tells how far it is meanwhile.
///
/// # Errors
/// None answers there, or not as expected.
pub fn ask(data_dir: &Path, wish: Wish, tell: &Tell) -> io::Result<Answer> {
    // Short wherever the folder lies, as long as its descriptor is open.
    let folder = Folder::follow(data_dir)?;
    let mut stream = UnixStream::connect(folder.place(SOCKET))?;
    let request = Request {
        version: VERSION,
        wish,
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut from = BufReader::new(stream);
    loop {
        let mut line = String::new();
        from.by_ref().take(LONGEST_ANSWER).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_str::<Reply>(&line)?.answer {
            Answer::Progress(now) => drop(tell.send_replace(Some(now))),
            answer => return Ok(answer),
        }
    }
}
