//! `groupshot user …`: who may call, and with which role. A running server sees a change within a second.

use std::net::IpAddr;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::auth::users::{self, UserError};
use crate::doctor::line::Unlock;
use crate::handler::Role;
use crate::server;

use super::failure::Failure;
use super::local::DataDir;
use super::output::{Output, table};
use super::remote::{block_on, new_password};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a user.
    Add {
        #[command(flatten)]
        data: DataDir,
        /// The name.
        name: String,
        /// What the user may do.
        #[arg(long, default_value = "operator")]
        role: RoleName,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Show the users.
    List {
        #[command(flatten)]
        data: DataDir,
    },
    /// Take the users file as it is, after it was edited by hand.
    Accept {
        #[command(flatten)]
        data: DataDir,
    },
    /// Remove a user.
    Remove {
        #[command(flatten)]
        data: DataDir,
        /// The name.
        name: String,
        /// The last administrator too.
        #[arg(long)]
        force: bool,
    },
    /// End the lock-out of a user, or of an address, after too many wrong passwords.
    #[command(group(ArgGroup::new("who").args(["name", "address"]).required(true).multiple(true)))]
    Unlock {
        #[command(flatten)]
        data: DataDir,
        /// The user, at all addresses.
        name: Option<String>,
        /// The address, and all users at it.
        #[arg(long, value_name = "ADDRESS", value_parser = address)]
        address: Option<IpAddr>,
    },
    /// Give a user another password.
    Password {
        #[command(flatten)]
        data: DataDir,
        /// The name.
        name: String,
        #[command(flatten)]
        password: PasswordSource,
    },
}

#[derive(Debug, Args)]
pub(super) struct PasswordSource {
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

/// Roles, each with those before it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleName {
    /// Reads.
    Reader,
    /// Takes snapshot sets and manages collections.
    Operator,
    /// Everything.
    Administrator,
}

pub(super) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Add {
            data,
            name,
            role,
            password,
        } => {
            let role = match role {
                RoleName::Reader => Role::Reader,
                RoleName::Operator => Role::Operator,
                RoleName::Administrator => Role::Administrator,
            };
            let directory = server::make_data_dir(&data.path()?)?;
            server::require_own(&directory)?;
            let password = new_password(password.password_stdin, name)?;
            users::add(&directory, name, role, &password)?;
            output.result(json!({"name": name, "role": role.to_string()}), || {
                format!("user `{name}` added as {role}")
            })
        }
        Command::List { data } => {
            let users = users::list(&server::existing_data_dir(&data.to_read(output)?)?)?;
            let mut rows = vec![["NAME", "ROLE"].map(str::to_owned).to_vec()];
            let row = |u: &users::User| vec![u.name.clone(), u.role.to_string()];
            rows.extend(users.iter().map(row));
            let object = |u: &users::User| json!({"name": u.name, "role": u.role.to_string()});
            let objects: Vec<_> = users.iter().map(object).collect();
            output.result(json!({"users": objects}), || table(&rows))
        }
        Command::Accept { data } => {
            let directory = server::existing_data_dir(&data.path()?)?;
            server::require_own(&directory)?;
            let users = users::accept(&directory)?;
            let names: Vec<_> = users.iter().map(|u| u.name.clone()).collect();
            output.result(json!({"users": names}), || {
                format!("accepted; users: {}", names.join(", "))
            })
        }
        Command::Remove { data, name, force } => {
            let directory = server::existing_data_dir(&data.path()?)?;
            server::require_own(&directory)?;
            users::remove(&directory, name, *force)?;
            output.result(json!({"name": name}), || format!("user `{name}` removed"))
        }
        Command::Unlock {
            data,
            name,
            address,
        } => {
            let wish = Unlock {
                user: name.clone(),
                address: *address,
            };
            let data_dir = data.path()?;
            let opened = block_on(async { Ok(server::unlock(&data_dir, wish).await?) })?;
            let served = opened.is_some();
            let opened = opened.unwrap_or_default();
            let result =
                json!({"user": name, "address": address, "served": served, "unlocked": opened});
            output.result(result, || match (served, opened.is_empty()) {
                (false, _) => "no server runs, so nobody is locked out".to_owned(),
                (true, true) => "nothing was locked out".to_owned(),
                (true, false) => format!("unlocked at {}", opened.join(", ")),
            })
        }
        Command::Password {
            data,
            name,
            password,
        } => {
            let directory = server::existing_data_dir(&data.path()?)?;
            server::require_own(&directory)?;
            let password = new_password(password.password_stdin, name)?;
            users::set_password(&directory, name, &password)?;
            output.result(json!({"name": name}), || {
                format!("user `{name}` has a new password")
            })
        }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let form = || "expected an address, as 192.0.2.7 or 2001:db8::7".to_owned();
    text.parse().map_err(|_| form())
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        server::StartError::from(error).into()
    }
}
