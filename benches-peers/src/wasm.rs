//! A sandbox inside the process: wasmtime. Bytes are copied in, copied by the guest, and copied out.

use std::path::Path;

use anyhow::{Context, Result, bail};
use goplug_benches::{Case, Exchange, Job, Measured, Subject, Work, drive_blocking};
use wasmtime::{
    Config, Engine, Instance, InstanceAllocationStrategy, InstancePre, Linker, Memory, Module, PoolingAllocationConfig,
    Store, TypedFunc,
};

/// Where the guest finds the request, and puts the reply: room for 1 MiB each.
const REQUEST: usize = 1 << 16;
const REPLY: usize = 3 << 20;
/// A guest that echoes: `call(request, length, reply)`.
const GUEST: &str = r#"(module
    (memory (export "memory") 80)
    (func (export "call") (param $request i32) (param $length i32) (param $reply i32) (result i32)
        (memory.copy (local.get $reply) (local.get $request) (local.get $length))
        (local.get $length)))"#;

pub(crate) struct Wasm {
    /// A new instance, from the pool, for each call; else one instance for all.
    pub(crate) fresh: bool,
}

impl Subject for Wasm {
    fn name(&self) -> String {
        format!("wasmtime/{}", if self.fresh { "fresh-pooled" } else { "reused" })
    }

    fn takes(&self, case: &Case) -> bool {
        case.work == Work::Echo && case.in_flight == 1 && case.size <= 1 << 20
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut config = Config::new();
        let mut pool = PoolingAllocationConfig::default();
        pool.total_memories(16).total_core_instances(16).max_memory_size(16 << 20);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).map_err(shown)?;
        let module = Module::new(&engine, GUEST).map_err(shown)?;
        let ready = Linker::new(&engine).instantiate_pre(&module).map_err(shown)?;
        let exchange = Exchange::new(job.case);
        let mut reply = vec![0; job.case.size];
        let mut reused = Guest::new(&engine, &ready)?;
        let call = || {
            if self.fresh {
                Guest::new(&engine, &ready)?.call(&exchange.request, &mut reply)?;
            } else {
                reused.call(&exchange.request, &mut reply)?;
            }
            exchange.check(&reply)
        };
        drive_blocking(job, None, &mut [call])
    }

    fn plugin(&self, _dir: &Path, _work: Work, _size: usize) -> Result<()> {
        bail!("the guest runs inside the host")
    }
}

struct Guest {
    store: Store<()>,
    memory: Memory,
    call: TypedFunc<(u32, u32, u32), u32>,
}

impl Guest {
    fn new(engine: &Engine, ready: &InstancePre<()>) -> Result<Self> {
        let mut store = Store::new(engine, ());
        let instance: Instance = ready.instantiate(&mut store).map_err(shown)?;
        let memory = instance.get_memory(&mut store, "memory").context("a guest without memory")?;
        let call = instance.get_typed_func(&mut store, "call").map_err(shown)?;
        Ok(Self { store, memory, call })
    }

    fn call(&mut self, request: &[u8], reply: &mut [u8]) -> Result<()> {
        self.memory.write(&mut self.store, REQUEST, request)?;
        let length = u32::try_from(request.len())?;
        self.call.call(&mut self.store, (REQUEST as u32, length, REPLY as u32)).map_err(shown)?;
        Ok(self.memory.read(&self.store, REPLY, reply)?)
    }
}

/// wasmtime's error is a type of its own.
fn shown(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}
