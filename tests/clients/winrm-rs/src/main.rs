//! Asks a WQL query with winrm-rs and prints the items as they came, or the error and exit code 1.
//!
//! Arguments: port on loopback, user, namespace, envelope size in octets, query. The password comes in the
//! environment variable `PASSWORD`.

use std::process::ExitCode;

use winrm_rs::{AuthMethod, WinrmClient, WinrmConfig, WinrmCredentials};

fn main() -> ExitCode {
    match ask() {
        Ok(items) => {
            println!("{items}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn ask() -> Result<String, Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [port, user, namespace, envelope, query] = arguments.as_slice() else {
        return Err("expected: port user namespace envelope-size query".into());
    };
    let config = WinrmConfig {
        port: port.parse()?,
        auth_method: AuthMethod::Basic,
        max_envelope_size: envelope.parse()?,
        ..WinrmConfig::default()
    };
    let credentials = WinrmCredentials::new(user, std::env::var("PASSWORD")?, "");
    let client = WinrmClient::new(config, credentials)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(client.run_wql("127.0.0.1", query, Some(namespace)))?)
}
