// SPDX-License-Identifier: GPL-2.0
/*
 * Registrations: look-up by tid, pinned pages, life times.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/errno.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "umcg.h"

static struct workqueue_struct *umcg_wq;
static void umcg_detach_work(struct work_struct *work);

int umcg_registry_init(void)
{
	/* Unbound: real-time tasks on one CPU must not hold up the workers of a dead server. */
	umcg_wq = alloc_workqueue("umcg", WQ_UNBOUND, 0);
	return umcg_wq ? 0 : -ENOMEM;
}

/*
 * No file is open and no thread is registered any more. Waits for the registrations that
 * are still on their way to be freed.
 */
void umcg_registry_exit(void)
{
	rcu_barrier();
	destroy_workqueue(umcg_wq);
}

/**
 * umcg_group_new() - a group for the calling process
 *
 * Return: the group, or NULL if there is no memory.
 */
struct umcg_group *umcg_group_new(void)
{
	struct umcg_group *g = kvzalloc(sizeof(*g), GFP_KERNEL_ACCOUNT);

	if (!g)
		return NULL;
	refcount_set(&g->ref, 1);
	raw_spin_lock_init(&g->hash_lock);
	mutex_init(&g->pages_lock);
	INIT_LIST_HEAD(&g->pages);
	INIT_WORK(&g->detach_work, umcg_detach_work);
	g->salt = get_random_u32();
	g->mm = current->mm;
	mmgrab(g->mm);
	g->tgid = get_pid(task_tgid(current));
	return g;
}

static void umcg_group_put(struct umcg_group *g)
{
	if (!refcount_dec_and_test(&g->ref))
		return;
	mmdrop(g->mm);
	put_pid(g->tgid);
	kvfree(g);
}

static struct hlist_head *umcg_bucket(struct umcg_group *g, u32 tid)
{
	return &g->threads[hash_32(tid ^ g->salt, UMCG_BUCKET_BITS)];
}

/**
 * umcg_find() - the registered task with a tid
 * @g: the group
 * @tid: the tid, as the group's process sees it
 *
 * The task may be unregistered meanwhile: check umcg_gone() under its lock.
 *
 * Context: under rcu_read_lock().
 *
 * Return: the task, or NULL.
 */
struct umcg_thread *umcg_find(struct umcg_group *g, u32 tid)
{
	struct umcg_thread *t;

	hlist_for_each_entry_rcu(t, umcg_bucket(g, tid), node)
		if (t->tid == tid)
			return t;
	return NULL;
}

/**
 * umcg_find_server() - the registered server with a tid
 * @g: the group
 * @tid: the tid
 *
 * Context: as for umcg_find().
 *
 * Return: the server, or NULL if there is none or the task is a worker.
 */
struct umcg_thread *umcg_find_server(struct umcg_group *g, u32 tid)
{
	struct umcg_thread *s = umcg_find(g, tid);

	return s && !s->worker ? s : NULL;
}

/**
 * umcg_current() - the registration of current
 *
 * No lock is needed: only current itself changes its list of preempt notifiers.
 *
 * Return: the registration, or NULL.
 */
struct umcg_thread *umcg_current(void)
{
	struct preempt_notifier *notifier;

	hlist_for_each_entry(notifier, &current->preempt_notifiers, link)
		if (notifier->ops == &umcg_preempt_ops)
			return container_of(notifier, struct umcg_thread, notifier);
	return NULL;
}

/* Several tasks may share a page. It is pinned and accounted once for all of them. */
static struct umcg_page *umcg_page_get(struct umcg_group *g, u64 uaddr)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct umcg_page *new, *page;
	int ret;

	new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	if (!new)
		return ERR_PTR(-ENOMEM);
	new->users = 1;
	ret = pin_user_pages_fast(uaddr & PAGE_MASK, 1, FOLL_WRITE | FOLL_LONGTERM,
				  &new->page);
	if (ret != 1) {
		kfree(new);
		return ERR_PTR(ret == -ENOMEM ? ret : -EFAULT);
	}
	ret = -EINVAL;
	if (!PageAnon(new->page))
		goto unpin;

	mutex_lock(&g->pages_lock);
	list_for_each_entry(page, &g->pages, list) {
		if (page->page == new->page) {
			page->users++;
			mutex_unlock(&g->pages_lock);
			unpin_user_page(new->page);
			kfree(new);
			return page;
		}
	}
	ret = -ENOMEM;
	if (atomic64_inc_return(&g->mm->pinned_vm) > limit &&
	    !capable(CAP_IPC_LOCK)) {
		atomic64_dec(&g->mm->pinned_vm);
		mutex_unlock(&g->pages_lock);
		goto unpin;
	}
	list_add(&new->list, &g->pages);
	mutex_unlock(&g->pages_lock);
	return new;
unpin:
	unpin_user_page(new->page);
	kfree(new);
	return ERR_PTR(ret);
}

static void umcg_page_put(struct umcg_group *g, struct umcg_page *page)
{
	mutex_lock(&g->pages_lock);
	if (--page->users) {
		mutex_unlock(&g->pages_lock);
		return;
	}
	list_del(&page->list);
	atomic64_dec(&g->mm->pinned_vm);
	mutex_unlock(&g->pages_lock);
	unpin_user_page(page->page);
	kfree(page);
}

static void umcg_free_thread(struct work_struct *work)
{
	struct umcg_thread *t = container_of(to_rcu_work(work),
					     struct umcg_thread, free);

	irq_work_sync(&t->waker);
	umcg_page_put(t->group, t->page);
	put_task_struct(t->task);
	umcg_group_put(t->group);
	kfree(t);
	module_put(THIS_MODULE);	/* module exit waits for this work */
}

/**
 * umcg_put() - drop a reference; the last one frees after a grace period
 * @t: the registration
 *
 * Context: any, also with preemption off on PREEMPT_RT: nothing is freed here.
 */
void umcg_put(struct umcg_thread *t)
{
	if (refcount_dec_and_test(&t->ref)) {
		INIT_RCU_WORK(&t->free, umcg_free_thread);
		queue_rcu_work(umcg_wq, &t->free);
	}
}

static void umcg_waker(struct irq_work *work)
{
	umcg_wake(container_of(work, struct umcg_thread, waker), UMCG_WF_HERE);
}

static int umcg_check_words(struct umcg_thread *t)
{
	struct umcg_task *u = t->u;
	u32 server_tid = READ_ONCE(u->server_tid);
	bool found;

	if (READ_ONCE(u->tid) != t->tid || READ_ONCE(u->next_tid) ||
	    READ_ONCE(*umcg_state(t)) != UMCG_NONE)
		return -EINVAL;
	if (!t->worker)
		return server_tid == t->tid ? 0 : -EINVAL;
	if (READ_ONCE(u->blocked_ptr) || READ_ONCE(u->runnable_ptr))
		return -EINVAL;
	rcu_read_lock();
	found = umcg_find_server(t->group, server_tid);
	rcu_read_unlock();
	return found ? 0 : -ESRCH;
}

static struct umcg_thread *umcg_new(struct umcg_group *g,
				    const struct umcg_register *how)
{
	struct umcg_thread *t = kzalloc(sizeof(*t), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!t)
		return ERR_PTR(-ENOMEM);
	raw_spin_lock_init(&t->lock);
	refcount_set(&t->ref, 1);
	init_task_work(&t->gate_work, umcg_gate);
	init_task_work(&t->preempt_work, umcg_on_preempt);
	t->waker = IRQ_WORK_INIT_HARD(umcg_waker);
	preempt_notifier_init(&t->notifier, &umcg_preempt_ops);
	t->worker = how->flags & UMCG_REG_WORKER;
	t->phase = UMCG_PH_BLOCKED;
	t->tid = task_pid_vnr(current);
	t->uaddr = how->self;
	t->group = g;
	t->page = umcg_page_get(g, how->self);
	if (IS_ERR(t->page)) {
		ret = PTR_ERR(t->page);
		goto free;
	}
	t->u = page_address(t->page->page) + offset_in_page(how->self);
	ret = umcg_check_words(t);
	if (ret)
		goto put_page;
	/* From here on the registration ends by umcg_put(). */
	t->task = get_task_struct(current);
	refcount_inc(&g->ref);
	__module_get(THIS_MODULE);
	return t;
put_page:
	umcg_page_put(g, t->page);
free:
	kfree(t);
	return ERR_PTR(ret);
}

/**
 * umcg_register() - the call REGISTER
 * @g: the caller's group
 * @how: the argument
 *
 * A worker is admitted as if it had just unblocked: on its way back to user mode it sleeps
 * in the gate until a server picks it. No signal handler runs before that.
 *
 * Return: 0 or an error, see umcg_uapi.h.
 */
int umcg_register(struct umcg_group *g, const struct umcg_register *how)
{
	struct umcg_thread *t = umcg_current();

	if (how->flags & ~(UMCG_REG_WORKER | UMCG_REG_VERSION_MASK) ||
	    how->flags >> UMCG_REG_VERSION_SHIFT != UMCG_ABI_VERSION ||
	    how->pad || !how->self ||
	    how->self & (__alignof__(struct umcg_task) - 1))
		return -EINVAL;
	if (t && READ_ONCE(t->group->dead)) {
		umcg_end_registration(t, true);	/* it belongs to a file that is closed */
		t = NULL;
	}
	if (t)
		return -EINVAL;
	/*
	 * The caller may have the thread id of a server that exited. The workers of that server
	 * must be detached before the caller is registered, or they would find it in place of
	 * their own server.
	 */
	if (!(how->flags & UMCG_REG_WORKER))
		flush_work(&g->detach_work);
	t = umcg_new(g, how);
	if (IS_ERR(t))
		return PTR_ERR(t);
	atomic_inc(&g->live);
	preempt_notifier_register(&t->notifier);
	raw_spin_lock_irq(&g->hash_lock);
	hlist_add_head_rcu(&t->node, umcg_bucket(g, t->tid));
	raw_spin_unlock_irq(&g->hash_lock);
	if (!t->worker) {
		/*
		 * A thread that reads RUNNING may name this server in a call. Release: it then
		 * finds the server in the hash. Pairs with user space's acquire of the state.
		 */
		smp_store_release(umcg_state(t), UMCG_RUNNING);
		return 0;
	}
	set_bit(UMCG_F_IN_GATE, &t->flags);
	if (umcg_enqueue_self(t))	/* the server is gone: the gate makes it RUNNING */
		umcg_move(t, UMCG_NONE, UMCG_RUNNABLE);
	umcg_queue_gate(t);
	return 0;
}

/*
 * Detaches @w if its server is gone, or if it holds the slot of @host (which may be NULL),
 * or with @all in any case.
 */
static void umcg_detach_worker(struct umcg_thread *w, struct umcg_thread *host, bool all)
{
	struct umcg_thread *left = NULL;
	unsigned long irq;
	bool wake = false;

	raw_spin_lock_irqsave(&w->lock, irq);
	if (!w->dead && w->phase != UMCG_PH_DETACHED &&
	    (all || (host && w->host == host) ||
	     (w->phase != UMCG_PH_HOLD && umcg_server_gone(w))))
		wake = umcg_detach_locked(w, &left);
	raw_spin_unlock_irqrestore(&w->lock, irq);
	if (wake)
		umcg_wake(w, 0);
	if (left)
		umcg_wake(left, 0);
}

/* May take long, and may sleep. */
static void umcg_detach_workers(struct umcg_group *g, bool all)
{
	struct umcg_thread *w;
	unsigned int i;

	for (i = 0; i < UMCG_BUCKETS; i++) {
		rcu_read_lock();
		hlist_for_each_entry_rcu(w, &g->threads[i], node)
			if (w->worker)
				umcg_detach_worker(w, NULL, all);
		rcu_read_unlock();
		cond_resched();
	}
}

static void umcg_detach_work(struct work_struct *work)
{
	struct umcg_group *g = container_of(work, struct umcg_group, detach_work);

	umcg_detach_workers(g, false);
	umcg_group_put(g);
}

/* The same in a work item. umcg_register() waits for it before it registers a server. */
static void umcg_detach_workers_later(struct umcg_group *g)
{
	/* All threads of the process are on their way out. */
	if (READ_ONCE(current->signal->flags) & SIGNAL_GROUP_EXIT)
		return;
	refcount_inc(&g->ref);
	if (!queue_work(umcg_wq, &g->detach_work))
		umcg_group_put(g);	/* never the last reference: the caller has one */
}

/**
 * umcg_end_registration() - make current an ordinary thread
 * @t: current's registration
 * @may_sleep: false in a tracepoint, where preemption is off
 *
 * The user memory is not touched, because at exit it may have another user by now.
 *
 * The workers of a dead server are found by a walk over all tasks of the group. A
 * tracepoint cannot do that walk, so a work item does, one for each group.
 */
void umcg_end_registration(struct umcg_thread *t, bool may_sleep)
{
	struct umcg_thread *wake = NULL, *holder = NULL;
	struct umcg_group *g = t->group;
	unsigned long irq;

	rcu_read_lock();
	local_irq_save(irq);
	raw_spin_lock_nested(&t->lock, t->worker ? UMCG_LOCK_WORKER : UMCG_LOCK_SERVER);
	t->dead = true;
	if (t->worker) {
		wake = umcg_release_slot(t);
		t->phase = UMCG_PH_DETACHED;
	} else {
		holder = t->curr;
		t->curr = NULL;
	}
	raw_spin_unlock(&t->lock);
	raw_spin_lock(&g->hash_lock);
	hlist_del_rcu(&t->node);
	raw_spin_unlock(&g->hash_lock);
	local_irq_restore(irq);
	if (wake)
		umcg_wake(wake, 0);
	if (holder)	/* at once: it may be in user mode */
		umcg_detach_worker(holder, t, false);
	rcu_read_unlock();

	preempt_notifier_unregister(&t->notifier);
	if (!t->worker && may_sleep)
		umcg_detach_workers(g, false);
	else if (!t->worker)
		umcg_detach_workers_later(g);
	atomic_dec(&g->live);
	umcg_put(t);
}

/**
 * umcg_unregister() - the call UNREGISTER
 * @t: current's registration
 *
 * Return: 0 with the state NONE, or -EBUSY.
 */
int umcg_unregister(struct umcg_thread *t)
{
	if (!umcg_move(t, UMCG_RUNNING, UMCG_NONE))
		return -EBUSY;
	umcg_end_registration(t, true);
	return 0;
}

/**
 * umcg_group_close() - the last descriptor of the group's file is closed
 * @g: the group
 *
 * Nobody can make a call on the group any more, so no worker may be left asleep: all
 * workers are detached. The registrations end with their threads.
 */
void umcg_group_close(struct umcg_group *g)
{
	WRITE_ONCE(g->dead, true);
	/*
	 * Set dead, then look for sleeping workers. Pairs with umcg_try_enqueue_self(), which
	 * reads dead under the worker's lock: either it sees dead, or this walk sees the
	 * worker.
	 */
	smp_mb();
	umcg_detach_workers(g, true);
	umcg_group_put(g);
}
