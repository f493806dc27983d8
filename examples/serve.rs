//! Starts the server inside this program, on the store that the program itself goes on using.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use kvs::thread_pool::{SharedQueueThreadPool, ThreadPool};
use kvs::{KvServer, KvStore, KvsClient, KvsEngine, ServerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = KvStore::open(dir.path())?;
    store.set("no".to_owned(), "Oslo".to_owned())?;

    let pool = SharedQueueThreadPool::new(2)?;
    let server = KvServer::start(store.clone(), pool, "127.0.0.1:0", ServerOptions::new())?;
    println!("listening on {}", server.local_addr());

    let mut client = KvsClient::connect(server.local_addr())?;
    println!("the client reads {:?}", client.get("no".to_owned())?);
    client.set("se".to_owned(), "Stockholm".to_owned())?;
    println!("the program reads {:?}", store.get("se".to_owned())?);

    server.stop(Duration::from_secs(5))?;
    Ok(())
}
