/* Send the same bytes on many connections, in one loop without the interpreter.
 *
 * Owns which connections a loop may write to past their transport, and the loop. Knows no events: Python code makes the
 * bytes, and handles each link that this loop passes over. Why: docs/adr/0044-one-loop-of-sends.md
 *
 * Uses the limited API only, so that one build serves every Python from 3.11 on.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS has none; Python ignores SIGPIPE */
#endif

#define AT_ONCE 64 /* links that are looked at together */
#define RAW (-1) /* the cost of bytes that no window counts */

typedef struct {
    PyObject_HEAD
    PyObject *sink;      /* what the link must still write to */
    PyObject *transport; /* of the event loop: the owner of `fd` */
    Py_ssize_t credit;   /* bytes that may be sent; RAW: bytes are not counted */
    int fd;              /* -1: closed */
} Outlet;

typedef struct {
    PyTypeObject *outlet_type;
    PyObject *outlet, *transport, *is_closing, *get_write_buffer_size; /* names of attributes */
} State;

/* --- Outlet ------------------------------------------------------------------------------------------------------ */

static PyObject *
outlet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sink", "transport", "fd", "credit", NULL};
    PyObject *sink, *transport;
    int fd;
    Py_ssize_t credit = RAW;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOi|n", names, &sink, &transport, &fd, &credit)) {
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Outlet *self = (Outlet *)alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->sink = Py_NewRef(sink);
    self->transport = Py_NewRef(transport);
    self->fd = fd;
    self->credit = credit < 0 ? RAW : credit;
    return (PyObject *)self;
}

static int
outlet_traverse(PyObject *op, visitproc visit, void *arg)
{
    Outlet *self = (Outlet *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->sink);
    Py_VISIT(self->transport);
    return 0;
}

static int
outlet_clear(PyObject *op)
{
    Outlet *self = (Outlet *)op;
    self->fd = -1;
    Py_CLEAR(self->sink);
    Py_CLEAR(self->transport);
    return 0;
}

static void
outlet_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    PyObject_GC_UnTrack(op);
    outlet_clear(op);
    release(op);
    Py_DECREF(type);
}

static PyObject *
outlet_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    outlet_clear(op);
    Py_RETURN_NONE;
}

static PyObject *
outlet_take_credit(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Outlet *self = (Outlet *)op;
    Py_ssize_t credit = self->credit;
    if (credit == RAW) {
        credit = 0;
    } else {
        self->credit = 0;
    }
    return PyLong_FromSsize_t(credit);
}

static PyMethodDef outlet_methods[] = {
    {"close", outlet_close, METH_NOARGS, "Send nothing from now on."},
    {"take_credit", outlet_take_credit, METH_NOARGS, "Return the credit that was not used, and have none."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef outlet_members[] = {
    {"transport", T_OBJECT, offsetof(Outlet, transport), READONLY, "The owner of the socket; None when closed."},
    {"fd", T_INT, offsetof(Outlet, fd), READONLY, "The file number of the socket; -1 when closed."},
    {"credit", T_PYSSIZET, offsetof(Outlet, credit), 0, "Bytes that may be sent; -1: they are not counted."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot outlet_slots[] = {
    {Py_tp_doc, "A connection that may be written to past its transport."},
    {Py_tp_new, outlet_new},
    {Py_tp_traverse, outlet_traverse},
    {Py_tp_clear, outlet_clear},
    {Py_tp_dealloc, outlet_dealloc},
    {Py_tp_methods, outlet_methods},
    {Py_tp_members, outlet_members},
    {0, NULL},
};

static PyType_Spec outlet_spec = {
    .name = "relay.live.sending._send_loop.Outlet",
    .basicsize = sizeof(Outlet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = outlet_slots,
};

/* --- the loop ---------------------------------------------------------------------------------------------------- */

/* Whether a method without arguments returns something true; -1: it raised an error. */
static int
is_true(PyObject *object, PyObject *method)
{
    PyObject *answer = PyObject_CallMethodObjArgs(object, method, NULL);
    if (answer == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return truth;
}

/* Whether bytes that cost so much may be sent now: 1 or 0; -1: an error was raised. */
static int
may_send(const State *state, PyObject *link, const Outlet *outlet, Py_ssize_t cost)
{
    if (outlet->fd < 0 || (outlet->credit == RAW) != (cost == RAW) || outlet->credit < cost) {
        return 0;
    }
    PyObject *sink = PyObject_GetAttr(link, state->transport);
    if (sink == NULL) {
        return -1;
    }
    int is_same = sink == outlet->sink;
    Py_DECREF(sink);
    if (!is_same) {
        return 0;
    }
    /* An event loop closes a socket after `is_closing` has become true, and writes what waits in the order it came. */
    PyObject *transport = Py_NewRef(outlet->transport);
    int is_closing = is_true(transport, state->is_closing);
    int waits = is_closing ? 0 : is_true(transport, state->get_write_buffer_size);
    Py_DECREF(transport);
    if (is_closing < 0 || waits < 0) {
        return -1;
    }
    return !is_closing && !waits && outlet->fd >= 0 && outlet->credit >= cost;
}

/* Return the outlet of a link (a new reference) when bytes that cost so much may be sent on it now; otherwise NULL,
 * with an error set only when it is not one of this link. */
static Outlet *
ready_outlet(const State *state, PyObject *link, Py_ssize_t cost)
{
    PyObject *found = PyObject_GetAttr(link, state->outlet);
    int may = found == NULL ? -1 : 0;
    if (found != NULL && Py_TYPE(found) == state->outlet_type) {
        may = may_send(state, link, (Outlet *)found, cost);
        if (may > 0) {
            return (Outlet *)found;
        }
    }
    Py_XDECREF(found);
    if (may < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* the link fails again where that is handled */
    }
    return NULL;
}

/* Return how many bytes the kernel took. After an error it is 0: the transport finds the same error, and ends the
 * connection as it always does. */
static Py_ssize_t
send_one(Outlet *outlet, const char *data, Py_ssize_t size, Py_ssize_t cost)
{
    Py_ssize_t sent;
    if (outlet->fd < 0) {
        return 0;
    }
    do {
        sent = send(outlet->fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent > 0 && cost != RAW) {
        outlet->credit -= cost;
    }
    return sent > 0 ? sent : 0;
}

static int
append_pair(PyObject *list, PyObject *link, Py_ssize_t sent)
{
    PyObject *pair = Py_BuildValue("(On)", link, sent);
    if (pair == NULL) {
        return -1;
    }
    int failed = PyList_Append(list, pair);
    Py_DECREF(pair);
    return failed;
}

/* Look at a few links, then send to those that are ready: what looking needs is in the processor's caches then, which
 * the kernel's work replaces at each call. */
static int
send_to_some(const State *state, PyObject *links, Py_ssize_t begin, int count, const char *data, Py_ssize_t size,
             Py_ssize_t cost, PyObject *rest)
{
    Outlet *outlets[AT_ONCE];
    int looked = 0, failed = 0;
    for (; looked < count && !failed; looked++) {
        outlets[looked] = NULL;
        PyObject *link = begin + looked < PyList_Size(links) ? PyList_GetItem(links, begin + looked) : NULL;
        if (link != NULL && size > 0) {
            Py_INCREF(link);
            outlets[looked] = ready_outlet(state, link, cost);
            Py_DECREF(link);
        }
        failed = PyErr_Occurred() != NULL;
    }
    Py_ssize_t sent[AT_ONCE];
    for (int at = 0; at < looked && !failed; at++) {
        sent[at] = outlets[at] == NULL ? 0 : send_one(outlets[at], data, size, cost);
    }
    for (int at = 0; at < looked; at++) {
        if (!failed && sent[at] < size) {
            PyObject *link = PyList_GetItem(links, begin + at);
            failed = link == NULL || append_pair(rest, link, sent[at]) < 0;
        }
        Py_XDECREF((PyObject *)outlets[at]);
    }
    return failed;
}

static PyObject *
send_to(PyObject *module, PyObject *args)
{
    PyObject *links;
    const char *data;
    Py_ssize_t begin, end, size, cost = RAW;
    if (!PyArg_ParseTuple(args, "O!nny#|n", &PyList_Type, &links, &begin, &end, &data, &size, &cost)) {
        return NULL;
    }
    const State *state = PyModule_GetState(module);
    PyObject *rest = PyList_New(0);
    if (rest == NULL) {
        return NULL;
    }
    begin = begin < 0 ? 0 : begin;
    end = end < PyList_Size(links) ? end : PyList_Size(links);
    int failed = 0;
    while (begin < end && !failed) {
        int count = end - begin < AT_ONCE ? (int)(end - begin) : AT_ONCE;
        failed = send_to_some(state, links, begin, count, data, size, cost, rest);
        begin += count;
    }
    if (failed) {
        Py_DECREF(rest);
        return NULL;
    }
    return rest;
}

/* --- the module -------------------------------------------------------------------------------------------------- */

static int
module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->outlet_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &outlet_spec, NULL);
    if (state->outlet_type == NULL || PyModule_AddType(module, state->outlet_type) < 0) {
        return -1;
    }
    state->outlet = PyUnicode_InternFromString("outlet");
    state->transport = PyUnicode_InternFromString("transport");
    state->is_closing = PyUnicode_InternFromString("is_closing");
    state->get_write_buffer_size = PyUnicode_InternFromString("get_write_buffer_size");
    return state->outlet && state->transport && state->is_closing && state->get_write_buffer_size ? 0 : -1;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->outlet_type);
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->outlet_type);
    Py_CLEAR(state->outlet);
    Py_CLEAR(state->transport);
    Py_CLEAR(state->is_closing);
    Py_CLEAR(state->get_write_buffer_size);
    return 0;
}

static void
module_free(void *module)
{
    module_clear((PyObject *)module);
}

static PyMethodDef module_methods[] = {
    {"send_to", send_to, METH_VARARGS, "Send bytes to links[begin:end]; return the links that have not all of them."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "relay.live.sending._send_loop",
    .m_doc = "Send the same bytes on many connections.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__send_loop(void)
{
    return PyModuleDef_Init(&module_def);
}
