//! What the commands that speak to a server share: where it is, who asks, finding things by name or id.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use crate::cim::Path;
use crate::client::{self, Client, Credentials, Object};
use crate::tls::Trust;

use super::failure::Failure;
use super::naming::pick;
use super::output::one_line;
use super::prompt;

/// The namespace of everything here.
pub(super) const NAMESPACE: &str = crate::cim::schema::VIRTUALIZATION_V2;

/// Which server, which user.
#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// The server.
    #[arg(
        long,
        env = "GROUPSHOT_URL",
        default_value = "http://127.0.0.1:5985/wsman"
    )]
    url: String,
    /// The user. The password comes from GROUPSHOT_PASSWORD, from --password-stdin, or is asked for.
    #[arg(long, env = "GROUPSHOT_USER", default_value = "admin")]
    user: String,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// Whom to believe over https: a PEM file of CAs, or the server's own certificate. Without it those of
    /// the system.
    #[arg(long, env = "GROUPSHOT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Log on with this certificate (PEM) instead of user and password.
    #[arg(long, env = "GROUPSHOT_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of --cert (PEM).
    #[arg(long, env = "GROUPSHOT_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Believe any certificate: anybody between here and the server can read the password and change the
    /// answers.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

impl Remote {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let trust = Trust {
            ca: self.ca.clone(),
            insecure: self.insecure,
            identity: self.cert.clone().zip(self.key.clone()),
        };
        let credentials = match trust.identity {
            Some(_) => None,
            None if self.user.is_empty() => {
                return Err(Failure::usage("--user (or GROUPSHOT_USER) names no user"));
            }
            None => Some(Credentials {
                user: self.user.clone(),
                password: password(self.password_stdin, &format!("Password of {}: ", self.user))?,
            }),
        };
        Ok(Client::with_trust(&self.url, credentials.as_ref(), &trust)?)
    }
}

/// A password from where the operator wants it from.
pub(super) fn password(from_stdin: bool, prompt: &str) -> Result<String, Failure> {
    if from_stdin {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let Ok(password) = std::env::var("GROUPSHOT_PASSWORD") {
        return Ok(password);
    }
    if io::stdin().is_terminal() {
        return Ok(prompt::password(prompt)?);
    }
    Err(Failure::usage(
        "no password: set GROUPSHOT_PASSWORD or use --password-stdin",
    ))
}

/// Refuses text that no request can carry: written into one it would become another, and nobody would notice.
pub(super) fn sendable(what: &str, text: &str) -> Result<(), Failure> {
    match text.chars().find(|c| !crate::xml::allowed(*c)) {
        None => Ok(()),
        Some(c) => Err(Failure::usage(format_args!(
            "the {what} has the character U+{:04X}, which XML cannot hold",
            u32::from(c)
        ))),
    }
}

/// A password that is to be: from a terminal it is asked for twice. `GROUPSHOT_PASSWORD` is the one of whoever calls,
/// and not meant: `GROUPSHOT_NEW_PASSWORD` is.
pub(super) fn new_password(from_stdin: bool, user: &str) -> Result<String, Failure> {
    if from_stdin {
        return password(true, "");
    }
    if let Ok(password) = std::env::var("GROUPSHOT_NEW_PASSWORD") {
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "no password: set GROUPSHOT_NEW_PASSWORD or use --password-stdin",
        ));
    }
    let first = prompt::password(&format!("New password of {user}: "))?;
    if prompt::password("Once more: ")? != first {
        return Err(Failure::usage(
            "the two passwords differ; nothing was changed",
        ));
    }
    Ok(first)
}

/// Runs a command that waits for something.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// The only instance of a service class.
pub(super) fn service(class: &str) -> Path {
    Path::new(NAMESPACE, class)
}

/// Which objects a name may mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObjectKind {
    /// For messages: `virtual machine`.
    pub(super) word: &'static str,
    /// The class that is enumerated.
    pub(super) class: &'static str,
    /// The classes that objects of it have.
    pub(super) classes: &'static [&'static str],
    /// The key that holds the id.
    pub(super) key: &'static str,
}

pub(super) const MACHINE: ObjectKind = ObjectKind {
    word: "virtual machine",
    class: "Msvm_ComputerSystem",
    classes: &["Msvm_ComputerSystem"],
    key: "Name",
};
/// Collections of collections.
pub(super) const GROUPS: &str = "Msvm_ManagementCollection";
pub(super) const COLLECTION: ObjectKind = ObjectKind {
    word: "collection",
    class: "CIM_CollectionOfMSEs",
    classes: &["Msvm_VirtualSystemCollection", GROUPS],
    key: "CollectionID",
};
pub(super) const SNAPSHOT_SET: ObjectKind = ObjectKind {
    word: "snapshot set",
    class: "Msvm_SnapshotCollection",
    classes: &["Msvm_SnapshotCollection"],
    key: "CollectionID",
};

/// Every object of the kind; of computer systems the virtual machines only, not the host.
pub(super) async fn all(client: &Client, kind: ObjectKind) -> Result<Vec<Object>, Failure> {
    let mut objects = client.enumerate(NAMESPACE, kind.class).await?;
    if kind.class == MACHINE.class {
        objects.retain(|o| is_guid(o.text("Name")));
    }
    Ok(objects)
}

/// The object with that id or that name. What is named by its id needs no list.
pub(super) async fn find(
    client: &Client,
    kind: ObjectKind,
    wanted: &str,
) -> Result<Object, Failure> {
    if let Some(object) = by_id(client, kind, wanted).await? {
        return Ok(object);
    }
    one(client, kind, &all(client, kind).await?, wanted).cloned()
}

/// The object with that id; `None` if it is no id, or nothing has it.
async fn by_id(client: &Client, kind: ObjectKind, wanted: &str) -> Result<Option<Object>, Failure> {
    let Ok(id) = wanted.trim_matches(['{', '}']).parse::<crate::id::VmId>() else {
        return Ok(None);
    };
    for class in kind.classes {
        let mut target = Path::new(NAMESPACE, *class).key(kind.key, id.to_string().as_str());
        if kind.class == MACHINE.class {
            target = target.key("CreationClassName", *class);
        }
        match client.get(&target).await {
            Ok(object) => return Ok(Some(object)),
            Err(client::Error::Fault(_)) => {} // the list tells what is there
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Objects by id or name, in this order; the list of all is asked for once, and only if a name needs it.
pub(super) async fn find_each(
    client: &Client,
    kind: ObjectKind,
    wanted: &[String],
) -> Result<Vec<Result<Object, Failure>>, Failure> {
    let (mut found, mut known) = (Vec::new(), None);
    for name in wanted {
        if let Some(object) = by_id(client, kind, name).await? {
            found.push(Ok(object));
            continue;
        }
        let known = match &mut known {
            Some(known) => known,
            None => known.insert(all(client, kind).await?),
        };
        found.push(one(client, kind, known, name).cloned());
    }
    Ok(found)
}

/// The object with that id or that name, among all of the kind.
pub(super) fn one<'a>(
    client: &Client,
    kind: ObjectKind,
    all: &'a [Object],
    wanted: &str,
) -> Result<&'a Object, Failure> {
    let of = |o: &Object| {
        (
            o.text(kind.key).to_owned(),
            o.text("ElementName").to_owned(),
        )
    };
    pick(all, wanted, kind.word, of)?.ok_or_else(|| {
        Failure::failed(format_args!(
            "there is no {} `{}` on {}",
            kind.word,
            one_line(wanted),
            client.url()
        ))
    })
}

/// The reference to an object that was enumerated.
pub(super) fn reference(kind: ObjectKind, object: &Object) -> Path {
    let reference = Path::new(NAMESPACE, object.class.as_str());
    match kind.class == MACHINE.class {
        true => reference
            .key("CreationClassName", object.text("CreationClassName"))
            .key("Name", object.text("Name")),
        false => reference.key(kind.key, object.text(kind.key)),
    }
}

fn is_guid(text: &str) -> bool {
    text.parse::<crate::id::VmId>().is_ok()
}
