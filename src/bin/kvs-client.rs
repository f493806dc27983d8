//! `kvs-client`: reads and writes the store behind a running server.

#[path = "common/answer.rs"]
mod answer;
#[path = "common/exit.rs"]
mod exit;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kvs::KvsClient;

/// Read and write the key-value store of a running server.
#[derive(Parser)]
#[command(name = "kvs-client", version, disable_help_subcommand = true, after_help = EXAMPLE)]
struct Arguments {
    /// Address of the server
    #[arg(long, global = true, value_name = "IP:PORT", default_value = "127.0.0.1:4000")]
    addr: SocketAddr,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set KEY to VALUE
    #[command(after_help = SET_HELP)]
    Set { key: String, value: String },
    /// Print the value of KEY, or "Key not found"
    #[command(after_help = GET_HELP)]
    Get { key: String },
    /// Remove KEY; fails if it is not there
    #[command(after_help = RM_HELP)]
    Rm { key: String },
}

const EXAMPLE: &str = "\
Example:
  kvs-client set no Oslo && kvs-client get no

Exit code: 0 done, also if get finds nothing; 1 refused or failed; 2 usage";

const SET_HELP: &str = "\
Example:
  kvs-client --addr 127.0.0.1:4000 set no Oslo";

const GET_HELP: &str = "\
Example:
  kvs-client --addr 127.0.0.1:4000 get no";

const RM_HELP: &str = "\
Example:
  kvs-client --addr 127.0.0.1:4000 rm no";

fn main() -> ExitCode {
    exit::code("kvs-client", run(Arguments::parse()))
}

fn run(Arguments { addr, command }: Arguments) -> kvs::Result<()> {
    let mut client = KvsClient::connect(addr)?;
    match command {
        Command::Set { key, value } => client.set(key, value),
        Command::Get { key } => answer::print(client.get(key)?.as_deref().map(str::as_bytes)),
        Command::Rm { key } => client.remove(key),
    }
}
