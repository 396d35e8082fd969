//! All of it: `get_global`, `Live`, of one key, through `Node`. The answers are complete, or the
//! measurement ends.

use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Node, Options, Pattern, Query, Value};

use crate::Scatter;

pub struct Asker {
    node: Node,
    query: Query,
    sum: i64,
}

fn open(name: &str, listen: String, ports: &[u16]) -> Node {
    let mut options = Options::new("yard", name);
    options.listen = vec![listen];
    options.peers = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let node = Node::open(&options).expect("a node");
    node.store().set("counter", 1_i64).expect("set");
    node
}

impl Asker {
    pub fn new(ports: &[u16]) -> Self {
        let node = open("asker", "127.0.0.1:0".into(), ports);
        assert_eq!(node.members().len(), ports.len() + 1);
        let query = Query::new(
            Pattern::exact("counter"),
            Reducer::named("sum").expect("sum"),
        );
        Self {
            node,
            query,
            sum: ports.len() as i64 + 1,
        }
    }
}

impl Scatter for Asker {
    fn round(&mut self, _: u64) {
        let view = self.node.get_global(self.query.clone()).expect("complete");
        assert_eq!(view.value, Some(Value::Int(self.sum)));
    }
}

pub fn serve(port: u16, connect: &[u16]) -> ! {
    let _node = open(&port.to_string(), format!("127.0.0.1:{port}"), connect);
    println!("ready");
    loop {
        std::thread::park();
    }
}
