//! libiscsi as a lane: the initiator that QEMU has. It is loaded when it is wanted, so that nothing else needs it.
#![allow(unsafe_code)] // it is a C library

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use libloading::Library;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use system_tests::initiators::Login;

use super::super::load::Lane;

/// How long an answer may take.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
const LOGICAL_BLOCK: c_int = 512;
const NORMAL_SESSION: c_int = 2;
/// SAM-5, 5.3.1.
const GOOD: c_int = 0;

type Context = *mut c_void;
type Task = *mut c_void;
type Ended = extern "C" fn(Context, c_int, *mut c_void, *mut c_void);
type Read = unsafe extern "C" fn(
    Context,
    c_int,
    u64,
    u32,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    Ended,
    *mut c_void,
) -> Task;
type Write = unsafe extern "C" fn(
    Context,
    c_int,
    u64,
    *mut c_uchar,
    u32,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    Ended,
    *mut c_void,
) -> Task;
type Flush = unsafe extern "C" fn(Context, c_int, u64, u32, c_int, c_int, Ended, *mut c_void) -> Task;

/// The functions of it that are used, as iscsi/iscsi.h and iscsi/scsi-lowlevel.h of version 1.19 declare them.
struct Api {
    create_context: unsafe extern "C" fn(*const c_char) -> Context,
    destroy_context: unsafe extern "C" fn(Context) -> c_int,
    set_targetname: unsafe extern "C" fn(Context, *const c_char) -> c_int,
    set_session_type: unsafe extern "C" fn(Context, c_int) -> c_int,
    set_chap: unsafe extern "C" fn(Context, *const c_char, *const c_char) -> c_int,
    set_no_reconnect: unsafe extern "C" fn(Context, c_int),
    connect: unsafe extern "C" fn(Context, *const c_char, c_int) -> c_int,
    error: unsafe extern "C" fn(Context) -> *const c_char,
    descriptor: unsafe extern "C" fn(Context) -> c_int,
    which_events: unsafe extern "C" fn(Context) -> c_int,
    service: unsafe extern "C" fn(Context, c_int) -> c_int,
    read16: Read,
    write16: Write,
    flush16: Flush,
    add_buffer: unsafe extern "C" fn(Task, c_int, *mut c_uchar) -> c_int,
    free_task: unsafe extern "C" fn(Task),
}

impl Api {
    fn get() -> Result<&'static Self> {
        static API: OnceLock<Result<Api, libloading::Error>> = OnceLock::new();
        API.get_or_init(Self::load).as_ref().context("there is no libiscsi: `make tools` installs it")
    }

    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: what it runs when it is loaded has no conditions; it stays loaded until the end.
        let library: &'static Library = Box::leak(Box::new(unsafe { Library::new("libiscsi.so.7")? }));
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the field that this goes into has the type that the library's header gives.
                *unsafe { library.get(concat!($name, "\0").as_bytes())? }
            };
        }
        Ok(Self {
            create_context: symbol!("iscsi_create_context"),
            destroy_context: symbol!("iscsi_destroy_context"),
            set_targetname: symbol!("iscsi_set_targetname"),
            set_session_type: symbol!("iscsi_set_session_type"),
            set_chap: symbol!("iscsi_set_initiator_username_pwd"),
            set_no_reconnect: symbol!("iscsi_set_noautoreconnect"),
            connect: symbol!("iscsi_full_connect_sync"),
            error: symbol!("iscsi_get_error"),
            descriptor: symbol!("iscsi_get_fd"),
            which_events: symbol!("iscsi_which_events"),
            service: symbol!("iscsi_service"),
            read16: symbol!("iscsi_read16_task"),
            write16: symbol!("iscsi_write16_task"),
            flush16: symbol!("iscsi_synchronizecache16_task"),
            add_buffer: symbol!("scsi_task_add_data_in_buffer"),
            free_task: symbol!("scsi_free_scsi_task"),
        })
    }
}

/// A session with a target's one connection.
pub(crate) struct IscsiLane {
    api: &'static Api,
    context: Context,
    lun: c_int,
    /// Their addresses stay: libiscsi has them while their commands are under way.
    slots: Box<[Slot]>,
}

struct Slot {
    buffer: Vec<u8>,
    /// Null: nothing is under way.
    task: Task,
    read_bytes: usize,
    status: Cell<Option<c_int>>,
}

/// A command has its status.
extern "C" fn ended(_: Context, status: c_int, _: *mut c_void, slot: *mut c_void) {
    // SAFETY: `slot` is the `status` of a slot, which lives longer than its context; everything is in one thread.
    unsafe { (*slot.cast::<Cell<Option<c_int>>>()).set(Some(status)) }
}

impl IscsiLane {
    pub(crate) fn connect(login: &Login, lun: u8, depth: usize, bytes: usize) -> Result<Self> {
        let api = Api::get()?;
        let [initiator, target, user, secret, portal] =
            [&login.initiator, &login.target, &login.user, &login.secret, &login.portal.to_string()]
                .map(|text| CString::new(text.as_str()));
        let (initiator, target, user, secret, portal) = (initiator?, target?, user?, secret?, portal?);
        // SAFETY: a name that ends with 0.
        let context = unsafe { (api.create_context)(initiator.as_ptr()) };
        ensure!(!context.is_null(), "libiscsi makes no context for {}", login.initiator);
        let slot =
            || Slot { buffer: vec![0; bytes], task: std::ptr::null_mut(), read_bytes: 0, status: Cell::new(None) };
        let lane = Self { api, context, lun: c_int::from(lun), slots: (0..depth).map(|_| slot()).collect() };
        // SAFETY: the context lives, the strings end with 0; libiscsi copies them.
        let refused = unsafe {
            (api.set_targetname)(context, target.as_ptr())
                | (api.set_session_type)(context, NORMAL_SESSION)
                | if login.user.is_empty() { 0 } else { (api.set_chap)(context, user.as_ptr(), secret.as_ptr()) }
        };
        ensure!(refused == 0, "libiscsi: {}", lane.error());
        // SAFETY: the context lives, the portal ends with 0.
        let refused = unsafe {
            (api.set_no_reconnect)(context, 1);
            (api.connect)(context, portal.as_ptr(), lane.lun)
        };
        ensure!(refused == 0, "{} at {}: {}", login.target, login.portal, lane.error());
        Ok(lane)
    }

    fn error(&self) -> String {
        // SAFETY: the context lives, and what it says ends with 0 and is copied at once.
        unsafe { CStr::from_ptr((self.api.error)(self.context)) }.to_string_lossy().into_owned()
    }

    fn begun(&mut self, slot: usize, task: Task, read_bytes: usize) -> Result<()> {
        ensure!(!task.is_null(), "libiscsi: {}", self.error());
        let slot = &mut self.slots[slot];
        (slot.task, slot.read_bytes) = (task, read_bytes);
        slot.status.set(None);
        Ok(())
    }

    /// Hears what has come, and answers it, within this time.
    pub(crate) fn serve(&self, patience: Timespec) -> Result<()> {
        // SAFETY: the context lives, and is connected: its descriptor is open until the next call of `service`.
        let (events, descriptor) = unsafe {
            let events = (self.api.which_events)(self.context);
            (events, BorrowedFd::borrow_raw((self.api.descriptor)(self.context)))
        };
        let events = PollFlags::from_bits_retain(u16::try_from(events)?);
        let mut polled = [PollFd::new(&descriptor, events)];
        poll(&mut polled, Some(&patience))?;
        let came = c_int::from(polled[0].revents().bits());
        // SAFETY: the context lives; slots of commands that end in this call live as long as it.
        let refused = came != 0 && unsafe { (self.api.service)(self.context, came) } != 0;
        ensure!(!refused, "libiscsi: {}", self.error());
        Ok(())
    }
}

impl Drop for IscsiLane {
    fn drop(&mut self) {
        // SAFETY: they are used no more; commands that are under way end here, while their slots still live.
        unsafe { (self.api.destroy_context)(self.context) };
    }
}

impl Lane for IscsiLane {
    fn write(&mut self, slot: usize, offset: u64, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let it = &mut self.slots[slot];
        fill(&mut it.buffer[..bytes]);
        let (data, status) = (it.buffer.as_mut_ptr(), (&raw const it.status).cast_mut().cast());
        let (lba, length) = (offset / u64::from(LOGICAL_BLOCK.unsigned_abs()), u32::try_from(bytes)?);
        // SAFETY: the context lives; buffer and status stay where they are until the command has ended.
        let task = unsafe {
            (self.api.write16)(self.context, self.lun, lba, data, length, LOGICAL_BLOCK, 0, 0, 0, 0, 0, ended, status)
        };
        self.begun(slot, task, 0)
    }

    fn read(&mut self, slot: usize, offset: u64, bytes: usize) -> Result<()> {
        let it = &mut self.slots[slot];
        let (data, status) = (it.buffer.as_mut_ptr(), (&raw const it.status).cast_mut().cast());
        let (lba, length) = (offset / u64::from(LOGICAL_BLOCK.unsigned_abs()), u32::try_from(bytes)?);
        // SAFETY: as for a write; the task has not been sent yet when its buffer is added.
        let task = unsafe {
            let task =
                (self.api.read16)(self.context, self.lun, lba, length, LOGICAL_BLOCK, 0, 0, 0, 0, 0, ended, status);
            if !task.is_null() && (self.api.add_buffer)(task, c_int::try_from(bytes)?, data) != 0 {
                bail!("libiscsi takes no buffer");
            }
            task
        };
        self.begun(slot, task, bytes)
    }

    fn flush(&mut self, slot: usize) -> Result<()> {
        let status = (&raw const self.slots[slot].status).cast_mut().cast();
        // SAFETY: as for a write. No block count: the whole unit.
        let task = unsafe { (self.api.flush16)(self.context, self.lun, 0, 0, 0, 0, ended, status) };
        self.begun(slot, task, 0)
    }

    fn wait(&mut self, mut tell: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        let has_ended = |slot: &Slot| !slot.task.is_null() && slot.status.get().is_some();
        let waits_for_something = self.slots.iter().any(|slot| !slot.task.is_null());
        while waits_for_something && !self.slots.iter().any(has_ended) {
            self.serve(PATIENCE)?;
        }
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| has_ended(slot)) {
            // SAFETY: it has ended, and is freed once.
            unsafe { (self.api.free_task)(std::mem::replace(&mut slot.task, std::ptr::null_mut())) };
            let status = slot.status.take().unwrap_or_default();
            ensure!(status == GOOD, "a command ended with status {status:#x}");
            tell(number, &slot.buffer[..slot.read_bytes])?;
        }
        Ok(())
    }
}
