/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The locking scheme of the zPCI I/O region, to be checked by spin: no deadlock, no instruction
 * outside of the device lock, no request fails, every request ends. See
 * Documentation/arch/s390/vfio-zpci-io-locking.rst.
 *
 * With another SCHEME the same model shows what is wrong with other ways to get the lock.
 */
#define LEASE		0	/* rust/vfio/lease.rs */
#define STATE_LOCK	1	/* 2021: the lock of the zPCI function's state, around the instruction */
#define DEVICE_LOCK	2	/* the device lock, blocking */
#define TRYLOCK		3	/* the device lock tried; a request that does not get it fails */
#define LOCK_FIRST	4	/* pci_dev_lock() before memory_lock */
#define LATE		5	/* the lease; remove() announces itself after it has waited */
#define EARLY		6	/* the lease; the leader does not wait for the members */
#define NO_MEMORY_LOCK	7	/* the lease without memory_lock */

#ifndef SCHEME
#define SCHEME LEASE
#endif

#define IS_LEASE (SCHEME == LEASE || SCHEME == LATE || SCHEME == EARLY || SCHEME == NO_MEMORY_LOCK)

/* Threads of the VMM that issue requests, and how many each may issue before it is asked to give
 * the device back; one more follows then. */
#ifndef THREADS
#define THREADS 3
#endif
#define REQUESTS 2
/* And two that reset the function and switch its memory space off and on. */
#define USERS (THREADS + 2)

/* Owner of a mutex. Threads are numbered from 0. */
#define NOBODY 255
#define UNBINDER 100
#define RESETTER 101
#define VFIO_RESET 102

byte device_lock = NOBODY;
byte state_lock = NOBODY;

/* memory_lock. As in a rw_semaphore, a waiting writer keeps new readers out. */
byte readers = 0;
byte writers_waiting = 0;
bool writer = false;

/* Configuration accesses wait, as pci_dev_lock() makes them do. */
bool cfg_blocked = false;

/* The word of the lease. */
bool open = false;
bool removing = false;
byte count = 0;

/* Instructions being issued. */
byte issuing = 0;

/* The VMM has been asked to close the device; how many of its threads have ended. */
bool asked = false;
byte ended = 0;

inline lock(mutex, me)	{ atomic { mutex == NOBODY -> mutex = me } }
inline unlock(mutex)	{ mutex = NOBODY }

inline down_read()	{ atomic { !writer && writers_waiting == 0 -> readers++ } }
inline up_read()	{ readers-- }
inline down_write()
{
	writers_waiting++;
	atomic { !writer && readers == 0 -> writer = true; writers_waiting-- }
}
inline up_write()	{ writer = false }

inline instruction()
{
	issuing++;
	assert(SCHEME == STATE_LOCK || device_lock != NOBODY);
	assert(!writer);
	issuing--
}

/* A reset, by whoever holds the device lock. */
inline reset()		{ assert(issuing == 0) }

proctype request_thread(byte me)
{
	byte left = REQUESTS;
	bool last = false;
	bool entered;
	bool leads;

	do
	:: !asked && left > 0 -> left--; goto request
	:: asked && !last -> last = true; goto request
	:: asked && last -> break
	continue: skip
	od;
	ended++;
	goto end;

request:
	if
	:: SCHEME == STATE_LOCK ->
		lock(state_lock, me);
		down_read();
		instruction();
		up_read();
		unlock(state_lock)

	:: SCHEME == DEVICE_LOCK ->
		lock(device_lock, me);
		instruction();
		unlock(device_lock)

	:: SCHEME == TRYLOCK ->
		atomic {
			assert(device_lock == NOBODY);
			device_lock = me
		};
		instruction();
		unlock(device_lock)

	:: SCHEME == LOCK_FIRST ->
		atomic {
			(device_lock == NOBODY || removing) ->
			leads = !removing;
			if
			:: leads -> device_lock = me; cfg_blocked = true
			:: else
			fi
		};
		down_read();
		instruction();
		up_read();
		if
		:: leads -> cfg_blocked = false; unlock(device_lock)
		:: else
		fi

	:: IS_LEASE ->
again:
		if
		:: SCHEME != NO_MEMORY_LOCK -> down_read()
		:: else
		fi;
		/* try_enter() */
		entered = false;
		leads = false;
		if
		:: atomic { open || removing -> count++; entered = true }
		:: atomic { !open && !removing -> skip };
			if
			:: atomic { device_lock == NOBODY -> device_lock = me; leads = true };
				assert(!open && !removing && count == 0);
				atomic { open = true; count++; entered = true }
			:: device_lock != NOBODY
			fi
		fi;
		if
		:: entered
		:: else ->
			if
			:: SCHEME != NO_MEMORY_LOCK -> up_read()
			:: else
			fi;
			/* wait(): woken, or a tick */
			open || removing || device_lock == NOBODY;
			goto again
		fi;
		instruction();
		/* leave() */
		if
		:: leads ->
			atomic { open = false; count-- };
			if
			:: SCHEME == EARLY
			:: else -> count == 0
			fi;
			unlock(device_lock)
		:: else ->
			count--
		fi;
		if
		:: SCHEME != NO_MEMORY_LOCK -> up_read()
		:: else
		fi
	fi;
	goto continue;
end:
	skip
}

/* VFIO_DEVICE_RESET: memory_lock for write, then the device lock is tried. */
proctype vfio_reset()
{
	down_write();
	if
	:: atomic { device_lock == NOBODY -> device_lock = VFIO_RESET };
		reset();
		unlock(device_lock)
	:: atomic { device_lock != NOBODY ->
		/* EAGAIN is right if the host has the lock, not because of a request. */
		assert(device_lock >= UNBINDER) }
	fi;
	up_write();
	ended++
}

/* The guest switches the memory space off and on. */
proctype command_writer()
{
	down_write();
	!cfg_blocked;
	up_write();
	ended++
}

/* echo 1 > /sys/bus/pci/devices/.../reset */
proctype sysfs_reset()
{
	lock(device_lock, RESETTER);
	cfg_blocked = true;
	reset();
	cfg_blocked = false;
	unlock(device_lock)
}

/* echo 0 > /sys/bus/pci/slots/.../power */
proctype power_off()
{
	lock(state_lock, UNBINDER);
	lock(device_lock, UNBINDER);
	/* The driver's remove() */
	removing = (SCHEME != LATE);
	asked = true;
	ended == USERS;
	removing = true;
	reset();
	unlock(device_lock);
	unlock(state_lock)
}

init {
	byte i;

	atomic {
		for (i : 0 .. THREADS - 1) {
			run request_thread(i)
		}
		run vfio_reset();
		run command_writer();
		run sysfs_reset();
		run power_off()
	}
}
