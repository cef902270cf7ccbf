// SPDX-License-Identifier: GPL-2.0
/*
 * UMCG, User Managed Concurrency Groups, as a module for unpatched kernels: the device
 * /dev/umcg. umcg_uapi.h describes the interface, umcg.h the locking, and README.md what an
 * administrator needs to know.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "umcg.h"

#ifdef UMCG_DEBUG
bool umcg_break_gate, umcg_break_requeue_gate, umcg_break_wake, umcg_break_lock;
module_param_named(break_gate, umcg_break_gate, bool, 0644);
MODULE_PARM_DESC(break_gate, "let an unblocked worker run before a server picks it");
module_param_named(break_requeue_gate, umcg_break_requeue_gate, bool, 0644);
MODULE_PARM_DESC(break_requeue_gate, "do not queue the gate again after a signal");
module_param_named(break_wake, umcg_break_wake, bool, 0644);
MODULE_PARM_DESC(break_wake, "do not wake the server for an event");
module_param_named(break_lock, umcg_break_lock, bool, 0644);
MODULE_PARM_DESC(break_lock, "wake a thread under a lock, against the lock order");
#endif

static int umcg_open(struct inode *inode, struct file *file)
{
	if (!current->mm)
		return -EINVAL;
	file->private_data = umcg_group_new();
	return file->private_data ? 0 : -ENOMEM;
}

static int umcg_release(struct inode *inode, struct file *file)
{
	umcg_group_close(file->private_data);
	return 0;
}

static long umcg_ioctl_register(struct umcg_group *g, void __user *arg)
{
	struct umcg_register how;

	if (copy_from_user(&how, arg, sizeof(how)))
		return -EFAULT;
	return umcg_register(g, &how);
}

static long umcg_ioctl_unregister(struct umcg_thread *t, void __user *arg)
{
	u64 self;

	if (copy_from_user(&self, arg, sizeof(self)))
		return -EFAULT;
	return self == t->uaddr ? umcg_unregister(t) : -EINVAL;
}

static long umcg_ioctl_wait(struct umcg_thread *t, void __user *arg)
{
	struct umcg_wait how;

	if (copy_from_user(&how, arg, sizeof(how)))
		return umcg_refuse(t, -EFAULT);
	return umcg_wait(t, &how);
}

static long umcg_ioctl_preempt(struct umcg_group *g, void __user *arg)
{
	u32 tid;

	if (get_user(tid, (u32 __user *)arg))
		return -EFAULT;
	return umcg_preempt(g, tid);
}

static long umcg_ioctl_current(struct umcg_group *g, void __user *arg)
{
	struct umcg_thread *s, *w;
	unsigned long irq;
	u32 tid;

	if (get_user(tid, (u32 __user *)arg))
		return -EFAULT;
	rcu_read_lock();
	s = umcg_find_server(g, tid);
	if (s) {
		local_irq_save(irq);
		raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
		w = s->curr;
		tid = w ? w->tid : 0;
		raw_spin_unlock(&s->lock);
		local_irq_restore(irq);
	}
	rcu_read_unlock();
	if (!s)
		return -ESRCH;
	return put_user(tid, (u32 __user *)arg);
}

static long umcg_ioctl_stat(struct umcg_group *g, void __user *arg)
{
	struct umcg_stat stat = {};
	struct umcg_thread *s;
	u32 tid;

	if (get_user(tid, &((struct umcg_stat __user *)arg)->tid))
		return -EFAULT;
	if (tid) {
		rcu_read_lock();
		s = umcg_find_server(g, tid);
		if (s) {
			stat.dispatches = READ_ONCE(s->dispatches);
			stat.blocks = READ_ONCE(s->blocks);
			stat.preempted = READ_ONCE(s->preempted);
			stat.longest_block_ns = READ_ONCE(s->longest_block);
		}
		rcu_read_unlock();
		if (!s)
			return -ESRCH;
	}
	stat.tid = tid;
	stat.live = atomic_read(&g->live);
	stat.gates = atomic64_read(&g->gates);
	stat.requeues = atomic64_read(&g->requeues);
	stat.user_returns = atomic64_read(&g->user_returns);
	stat.deferred = atomic64_read(&g->deferred);
	return copy_to_user(arg, &stat, sizeof(stat)) ? -EFAULT : 0;
}

static long umcg_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct umcg_group *g = file->private_data;
	void __user *p = (void __user *)arg;
	struct umcg_thread *t;

	if (cmd == UMCG_IOC_VERSION)
		return put_user((u32)UMCG_ABI_VERSION, (u32 __user *)p);
	if (current->mm != g->mm || task_tgid(current) != g->tgid)
		return -ESRCH;
	switch (cmd) {
	case UMCG_IOC_REGISTER:
		return umcg_ioctl_register(g, p);
	case UMCG_IOC_PREEMPT:
		return umcg_ioctl_preempt(g, p);
	case UMCG_IOC_CURRENT:
		return umcg_ioctl_current(g, p);
	case UMCG_IOC_STAT:
		return umcg_ioctl_stat(g, p);
	case UMCG_IOC_UNREGISTER:
	case UMCG_IOC_WAIT:
	case UMCG_IOC_CHECK:
		break;
	default:
		return -ENOTTY;
	}
	t = umcg_current();
	if (!t || t->group != g)
		return -EINVAL;
	if (cmd == UMCG_IOC_WAIT)
		return umcg_ioctl_wait(t, p);
	if (cmd == UMCG_IOC_UNREGISTER)
		return umcg_ioctl_unregister(t, p);
	return t->worker && READ_ONCE(t->phase) == UMCG_PH_DETACHED ? -ESRCH : 0;
}

static const struct file_operations umcg_fops = {
	.owner		= THIS_MODULE,
	.open		= umcg_open,
	.release	= umcg_release,
	.unlocked_ioctl	= umcg_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

/* Mode 0600: the udev rule decides which other users may open the device. */
static struct miscdevice umcg_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "umcg",
	.fops	= &umcg_fops,
	.mode	= 0600,
};

static int __init umcg_init(void)
{
	int ret = umcg_registry_init();

	if (ret)
		return ret;
	ret = umcg_hooks_init();
	if (ret)
		goto registry;
	ret = misc_register(&umcg_device);
	if (ret)
		goto hooks;
	return 0;
hooks:
	umcg_hooks_exit();
registry:
	umcg_registry_exit();
	return ret;
}

static void __exit umcg_exit(void)
{
	misc_deregister(&umcg_device);
	umcg_registry_exit();	/* waits until the last registrations are freed */
	umcg_hooks_exit();
	/*
	 * A task_work of this module may drop the last reference to a registration. With full
	 * preemption that task may be preempted before it has returned from the module's text.
	 * Keep the text until every such task has slept or was in user mode.
	 */
	synchronize_rcu_tasks();
}

module_init(umcg_init);
module_exit(umcg_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("User Managed Concurrency Groups");
MODULE_VERSION("0.1.0");
