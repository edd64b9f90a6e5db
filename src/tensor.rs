//! Named tensors on a device: what plans share and what survives a run.

mod pool;

pub(crate) use pool::share;

use crate::cpu::{self, Data};
use crate::device::{Device, Kind};
use crate::error::{Error, Result};
use crate::gpu;
use crate::shape::{DType, Shape};
use pool::Pool;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shape, type and storage on a device. Clones share the storage; host copies are made only on request.
#[derive(Clone)]
pub struct Tensor {
    /// Its shape.
    pub shape: Shape,
    /// Its element type.
    pub dtype: DType,
    pub(crate) storage: Storage,
}

#[derive(Clone)]
pub(crate) enum Storage {
    F32(cpu::Buffer<f32>),
    F64(cpu::Buffer<f64>),
    Gpu(gpu::Buffer),
}

/// Values on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    /// Floats; those of the f64 reference are rounded where f32 is asked for.
    F32(Vec<f32>),
    /// Floats of the reference executor.
    F64(Vec<f64>),
    /// Indices, labels, counters.
    U32(Vec<u32>),
    /// Bytes.
    U8(Vec<u8>),
}

impl Host {
    /// As f64; integers too.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Host::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Host::F64(v) => v.clone(),
            Host::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Host::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// As f32, rounded where they are not; integers too.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Host::F32(v) => v,
            other => other.to_f64().into_iter().map(|x| x as f32).collect(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Host::F32(_) | Host::F64(_) => DType::F32,
            Host::U32(_) => DType::U32,
            Host::U8(_) => DType::U8,
        }
    }

    fn len(&self) -> usize {
        match self {
            Host::F32(v) => v.len(),
            Host::F64(v) => v.len(),
            Host::U32(v) => v.len(),
            Host::U8(v) => v.len(),
        }
    }
}

/// The named tensors of one device. Plans compiled against the same store share those of the same name: weights,
/// inputs, optimiser state, the attack's iterate, counters of loss and correct answers. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    device: Device,
    tensors: Arc<Mutex<BTreeMap<String, Tensor>>>,
    pool: Arc<Mutex<Pool>>,
}

impl Store {
    /// An empty store on this device.
    pub fn new(device: &Device) -> Store {
        Store { device: device.clone(), tensors: Arc::default(), pool: Arc::default() }
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The names in use.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// The tensor of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.lock().get(name).cloned()
    }

    /// Forgets a tensor; plans that use it keep it.
    pub fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Tensor>> {
        // A panic elsewhere cannot leave the map half changed.
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tensor of this name, made and zero-filled when there is none.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the name is in use with another shape or type; [`Error::OutOfMemory`].
    pub fn ensure(&self, name: &str, shape: Shape, dtype: DType) -> Result<Tensor> {
        if let Some(have) = self.get(name) {
            if have.shape != shape || have.dtype != dtype {
                return Err(Error::Tensor {
                    name: name.into(),
                    have: format!("{} {}", have.dtype, have.shape),
                    want: format!("{dtype} {shape}"),
                });
            }
            return Ok(have);
        }
        let storage = allocate(&self.device, dtype, shape.len(), name)?;
        let tensor = Tensor { shape, dtype, storage };
        self.lock().insert(name.to_string(), tensor.clone());
        Ok(tensor)
    }

    fn find(&self, name: &str) -> Result<Tensor> {
        self.get(name).ok_or_else(|| {
            let names = self.names();
            Error::unknown("tensor", name, &names.iter().map(String::as_str).collect::<Vec<_>>())
        })
    }

    /// The tensors of these names, for [`crate::Program::run_reading`].
    ///
    /// # Errors
    /// An unknown name.
    pub fn tensors(&self, names: &[&str]) -> Result<Vec<Tensor>> {
        names.iter().map(|name| self.find(name)).collect()
    }

    /// Writes f32 values.
    ///
    /// # Errors
    /// An unknown name, another number of values than the tensor has, or another type.
    pub fn write_f32(&self, name: &str, values: &[f32]) -> Result<()> {
        self.write(name, &Host::F32(values.to_vec()))
    }

    /// Writes f64 values, rounded where the device computes in f32.
    ///
    /// # Errors
    /// As [`Store::write_f32`].
    pub fn write_f64(&self, name: &str, values: &[f64]) -> Result<()> {
        self.write(name, &Host::F64(values.to_vec()))
    }

    /// Writes u32 values.
    ///
    /// # Errors
    /// As [`Store::write_f32`].
    pub fn write_u32(&self, name: &str, values: &[u32]) -> Result<()> {
        self.write(name, &Host::U32(values.to_vec()))
    }

    /// Makes the tensor if need be, and writes it.
    ///
    /// # Errors
    /// As [`Store::ensure`] and [`Store::write_f32`].
    pub fn put(&self, name: &str, shape: impl Into<Shape>, values: &Host) -> Result<()> {
        self.ensure(name, shape.into(), values.dtype())?;
        self.write(name, values)
    }

    /// Writes values. It does not wait for the device: the next run sees them.
    ///
    /// # Errors
    /// As [`Store::write_f32`].
    pub fn write(&self, name: &str, values: &Host) -> Result<()> {
        let tensor = self.find(name)?;
        if values.len() != tensor.shape.len() || values.dtype() != tensor.dtype {
            let (have, want) = (tensor.shape, values.len());
            return Err(Error::argument(
                format!("tensor `{name}`"),
                format!("{want} values of {}", values.dtype()),
                format!("it holds {} {have}, {} values", tensor.dtype, have.len()),
            ));
        }
        self.device.count_upload();
        match &tensor.storage {
            Storage::F32(buffer) => write_host(buffer, values, |x| x as f32),
            Storage::F64(buffer) => write_host(buffer, values, |x| x),
            Storage::Gpu(buffer) => {
                let Kind::Gpu(gpu) = &self.device.kind else { return Ok(()) };
                match values {
                    Host::F32(v) => gpu.write(buffer, bytemuck::cast_slice(v))?,
                    Host::F64(v) => {
                        let v: Vec<f32> = v.iter().map(|&x| x as f32).collect();
                        gpu.write(buffer, bytemuck::cast_slice(&v))?;
                    }
                    Host::U32(v) => gpu.write(buffer, bytemuck::cast_slice(v))?,
                    Host::U8(v) => gpu.write(buffer, v)?,
                }
            }
        }
        Ok(())
    }

    /// Reads tensors in one readback.
    ///
    /// # Errors
    /// An unknown name, or an error of the device.
    pub fn read(&self, names: &[&str]) -> Result<Vec<Host>> {
        read(&self.device, &self.tensors(names)?)
    }

    /// Reads a float tensor.
    ///
    /// # Errors
    /// As [`Store::read`]; or the tensor does not hold floats.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        match self.read(&[name])?.remove(0) {
            Host::F32(values) => Ok(values),
            Host::F64(values) => Ok(values.into_iter().map(|x| x as f32).collect()),
            other => {
                Err(Error::argument(format!("tensor `{name}`"), other.dtype(), "it does not hold floats"))
            }
        }
    }

    /// Reads a tensor as f64.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_f64(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.read(&[name])?.remove(0).to_f64())
    }

    /// Temporaries of at least these types and elements for a plan of this thread, shared with its other plans.
    pub(crate) fn temporaries(&self, wanted: &[(DType, usize)]) -> Result<Vec<Arc<Tensor>>> {
        self.pool().take(&self.device, wanted)
    }

    /// Types and elements of the temporaries that the next plan of this thread may share.
    pub(crate) fn temporary_sizes(&self) -> Vec<(DType, usize)> {
        self.pool().sizes()
    }

    /// Scratch memory for the CPU executors of this thread's plans.
    pub(crate) fn workspace(&self) -> cpu::Workspace {
        self.pool().workspace()
    }

    /// Counts bytes that a plan has for itself until it drops what this returns.
    pub(crate) fn count(&self, bytes: u64) -> Arc<u64> {
        self.pool().count(bytes)
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        // A panic elsewhere cannot leave the lists half changed.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that its plans take beside the tensors: temporaries and scratch memory, most of which they share, and
    /// packed filters.
    pub fn temporary_bytes(&self) -> u64 {
        self.pool().bytes()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.lock().values().map(|t| (t.shape.len() * t.dtype.bytes()) as u64).sum()
    }
}

/// Reads tensors of this device in one readback.
pub(crate) fn read(device: &Device, tensors: &[Tensor]) -> Result<Vec<Host>> {
    if let Kind::Gpu(gpu) = &device.kind {
        return Ok(from_all_bytes(tensors, gpu.read(&gpu_buffers(tensors))?));
    }
    device.count_readback();
    Ok(tensors.iter().map(of_cpu).collect())
}

/// Values that are on their way from the device; see [`crate::Program::run_reading`].
pub struct Reading(Way);

enum Way {
    /// Of a GPU, with the tensors they are of.
    Gpu(gpu::Readback, Vec<Tensor>),
    /// Of the CPU, where they are there at once; empty once they were taken.
    Here(Option<Vec<Host>>),
}

impl Reading {
    pub(crate) fn of_gpu(readback: gpu::Readback, tensors: &[Tensor]) -> Reading {
        Reading(Way::Gpu(readback, tensors.to_vec()))
    }

    /// What tensors of a CPU executor hold now.
    pub(crate) fn of_cpu(tensors: &[Tensor]) -> Reading {
        Reading(Way::Here(Some(tensors.iter().map(of_cpu).collect())))
    }

    /// The values, one for each tensor, if they are there. It never waits, and gives them once.
    ///
    /// # Errors
    /// Of the device.
    pub fn take(&mut self) -> Result<Option<Vec<Host>>> {
        match &mut self.0 {
            Way::Gpu(readback, tensors) => Ok(readback.take()?.map(|all| from_all_bytes(tensors, all))),
            Way::Here(values) => Ok(values.take()),
        }
    }

    /// The values, waited for; none if they were taken before.
    ///
    /// # Errors
    /// Of the device.
    pub fn wait(self) -> Result<Vec<Host>> {
        match self.0 {
            Way::Gpu(readback, tensors) => Ok(from_all_bytes(&tensors, readback.wait()?)),
            Way::Here(values) => Ok(values.unwrap_or_default()),
        }
    }
}

/// The buffers of a GPU's tensors.
pub(crate) fn gpu_buffers(tensors: &[Tensor]) -> Vec<&gpu::Buffer> {
    let buffers = tensors.iter().map(|tensor| &tensor.storage);
    buffers.filter_map(|s| if let Storage::Gpu(buffer) = s { Some(buffer) } else { None }).collect()
}

fn from_all_bytes(tensors: &[Tensor], all: Vec<Vec<u8>>) -> Vec<Host> {
    tensors.iter().zip(all).map(|(tensor, bytes)| from_bytes(tensor, bytes)).collect()
}

/// What a tensor of a CPU executor holds.
fn of_cpu(tensor: &Tensor) -> Host {
    match &tensor.storage {
        Storage::F32(buffer) => read_host(buffer, Host::F32),
        Storage::F64(buffer) => read_host(buffer, Host::F64),
        Storage::Gpu(_) => unreachable!("a store's tensors are on its device"),
    }
}

fn from_bytes(tensor: &Tensor, bytes: Vec<u8>) -> Host {
    let bytes = &bytes[..tensor.shape.len() * tensor.dtype.bytes()];
    match tensor.dtype {
        DType::F32 => Host::F32(bytemuck::pod_collect_to_vec(bytes)),
        DType::F16 => {
            let halves: Vec<u16> = bytemuck::pod_collect_to_vec(bytes);
            Host::F32(halves.into_iter().map(|bits| half::f16::from_bits(bits).to_f32()).collect())
        }
        DType::U32 => Host::U32(bytemuck::pod_collect_to_vec(bytes)),
        DType::U8 => Host::U8(bytes.to_vec()),
    }
}

fn write_host<T: cpu::Float>(buffer: &cpu::Buffer<T>, values: &Host, to: impl Fn(f64) -> T) {
    let mut data = buffer.write().unwrap_or_else(PoisonError::into_inner);
    match (&mut *data, values) {
        (Data::Float(to_), Host::F32(v)) => to_.iter_mut().zip(v).for_each(|(a, &b)| *a = to(f64::from(b))),
        (Data::Float(to_), Host::F64(v)) => to_.iter_mut().zip(v).for_each(|(a, &b)| *a = to(b)),
        (Data::U32(to_), Host::U32(v)) => to_[..v.len()].copy_from_slice(v),
        (Data::U8(to_), Host::U8(v)) => to_[..v.len()].copy_from_slice(v),
        _ => unreachable!("types were compared"),
    }
}

fn read_host<T: cpu::Float>(buffer: &cpu::Buffer<T>, float: impl Fn(Vec<T>) -> Host) -> Host {
    match &*buffer.read().unwrap_or_else(PoisonError::into_inner) {
        Data::Float(v) => float(v.clone()),
        Data::U32(v) => Host::U32(v.clone()),
        Data::U8(v) => Host::U8(v.clone()),
    }
}

/// Zero-filled storage.
pub(crate) fn allocate(device: &Device, dtype: DType, len: usize, what: &str) -> Result<Storage> {
    Ok(match &device.kind {
        Kind::Cpu => Storage::F32(cpu::allocate(dtype, len)),
        Kind::Reference => Storage::F64(cpu::allocate(dtype, len)),
        Kind::Gpu(gpu) => Storage::Gpu(gpu.allocate((len * dtype.bytes()) as u64, what)?),
    })
}
