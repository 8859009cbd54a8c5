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
#define RAW (-1)   /* the cost of bytes that no window counts */
#define BODY 1     /* the state in which a stream sends: relay/http2/http2_stream.py */

typedef struct {
    PyObject_HEAD
    PyObject *sink;      /* what the link must still write to */
    PyObject *transport; /* of the event loop: the owner of `fd` */
    int fd;              /* -1: closed */
    int is_counted;      /* whether the sink is a stream, with windows of its own and of its connection */
} Outlet;

/* A link that may be sent to. All are new references. */
typedef struct {
    Outlet *outlet;             /* NULL: it may not */
    PyObject *stream, *turns;   /* of an outlet that is counted; otherwise NULL */
    Py_ssize_t window, shared;  /* of the stream, and of its connection */
} Ready;

enum { OUTLET, TRANSPORT, IS_CLOSING, WAITING, STATE, QUEUE, TURNS, WINDOW, IS_DIRECT, NAMES };

static const char *const attributes[NAMES] = {
    [OUTLET] = "outlet",
    [TRANSPORT] = "transport",
    [IS_CLOSING] = "is_closing",
    [WAITING] = "get_write_buffer_size",
    [STATE] = "_state",
    [QUEUE] = "_queue",
    [TURNS] = "_turns",
    [WINDOW] = "window",
    [IS_DIRECT] = "is_direct",
};

typedef struct {
    PyTypeObject *outlet_type;
    PyObject *names[NAMES];
} State;

/* --- Outlet ------------------------------------------------------------------------------------------------------ */

static PyObject *
outlet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sink", "transport", "fd", "is_counted", NULL};
    PyObject *sink, *transport;
    int fd, is_counted = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOi|p", names, &sink, &transport, &fd, &is_counted)) {
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
    self->is_counted = is_counted;
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

static PyMethodDef outlet_methods[] = {
    {"close", outlet_close, METH_NOARGS, "Send nothing from now on."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef outlet_members[] = {
    {"transport", T_OBJECT, offsetof(Outlet, transport), READONLY, "The owner of the socket; None when closed."},
    {"fd", T_INT, offsetof(Outlet, fd), READONLY, "The file number of the socket; -1 when closed."},
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

/* Each of these asks an object something by the name of an attribute, and returns a negative number after an error. */

static int
is_true(const State *state, PyObject *object, int name)
{
    PyObject *found = PyObject_GetAttr(object, state->names[name]);
    int truth = found == NULL ? -1 : PyObject_IsTrue(found);
    Py_XDECREF(found);
    return truth;
}

static int
returns_true(const State *state, PyObject *object, int name)
{
    PyObject *answer = PyObject_CallMethodObjArgs(object, state->names[name], NULL);
    int truth = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return truth;
}

static int
is_same(const State *state, PyObject *object, int name, const PyObject *wanted)
{
    PyObject *found = PyObject_GetAttr(object, state->names[name]);
    int same = found == NULL ? -1 : found == wanted;
    Py_XDECREF(found);
    return same;
}

static int
get_number(const State *state, PyObject *object, int name, Py_ssize_t *number)
{
    PyObject *found = PyObject_GetAttr(object, state->names[name]);
    *number = found == NULL ? -1 : PyLong_AsSsize_t(found);
    Py_XDECREF(found);
    return *number == -1 && PyErr_Occurred() ? -1 : 1;
}

static int
set_number(const State *state, PyObject *object, int name, Py_ssize_t number)
{
    PyObject *value = PyLong_FromSsize_t(number);
    int failed = value == NULL ? -1 : PyObject_SetAttr(object, state->names[name], value);
    Py_XDECREF(value);
    return failed;
}

/* Whether a stream may send so many bytes at once. That is what `Http2Stream.write` asks, less what the transport says:
 * it is not closing, and nothing waits in it. */
static int
stream_may_send(const State *state, Ready *ready, Py_ssize_t cost)
{
    Py_ssize_t number;
    int may = get_number(state, ready->stream, STATE, &number);
    may = may > 0 ? number == BODY : may;
    may = may > 0 ? is_same(state, ready->stream, QUEUE, Py_None) : may;
    may = may > 0 ? get_number(state, ready->stream, WINDOW, &ready->window) : may;
    if (may <= 0 || ready->window < cost) {
        return may < 0 ? -1 : 0;
    }
    ready->turns = PyObject_GetAttr(ready->stream, state->names[TURNS]);
    may = ready->turns == NULL ? -1 : get_number(state, ready->turns, WINDOW, &ready->shared);
    may = may > 0 ? ready->shared >= cost : may;
    return may > 0 ? is_true(state, ready->turns, IS_DIRECT) : may;
}

/* Whether bytes that cost so much may be sent now. */
static int
may_send(const State *state, PyObject *link, Ready *ready, Py_ssize_t cost)
{
    const Outlet *outlet = ready->outlet;
    if (outlet->fd < 0 || outlet->is_counted != (cost != RAW)) {
        return 0;
    }
    PyObject *sink = Py_NewRef(outlet->sink), *transport = Py_NewRef(outlet->transport);
    int may = is_same(state, link, TRANSPORT, sink);
    if (may > 0 && outlet->is_counted) {
        ready->stream = Py_NewRef(sink);
        may = stream_may_send(state, ready, cost);
    }
    /* An event loop closes a socket after `is_closing` has become true, and writes what waits in the order it came. */
    for (int name = IS_CLOSING; name <= WAITING && may > 0; name++) {
        int is_refused = returns_true(state, transport, name);
        may = is_refused < 0 ? -1 : !is_refused;
    }
    Py_DECREF(sink);
    Py_DECREF(transport);
    return may;
}

static void
clear_ready(Ready *ready)
{
    PyObject *outlet = (PyObject *)ready->outlet;
    ready->outlet = NULL;
    Py_XDECREF(outlet);
    Py_CLEAR(ready->stream);
    Py_CLEAR(ready->turns);
}

/* Look whether bytes that cost so much may be sent on a link now. An error is set only if it is not one of this link. */
static void
look(const State *state, PyObject *link, Py_ssize_t cost, Ready *ready)
{
    PyObject *found = PyObject_GetAttr(link, state->names[OUTLET]);
    int may = found == NULL ? -1 : 0;
    if (found != NULL && Py_TYPE(found) == state->outlet_type) {
        ready->outlet = (Outlet *)found;
        may = may_send(state, link, ready, cost);
        if (may <= 0) {
            clear_ready(ready);
        }
    } else {
        Py_XDECREF(found);
    }
    if (may < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* the link fails again where that is handled */
    }
}

/* Return how many bytes the kernel took. After an error it is 0: the transport finds the same error, and ends the
 * connection as it always does. */
static Py_ssize_t
send_one(const Outlet *outlet, const char *data, Py_ssize_t size)
{
    Py_ssize_t sent;
    if (outlet->fd < 0) {
        return 0;
    }
    do {
        sent = send(outlet->fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent > 0 ? sent : 0;
}

/* Take what was sent, in part or not, from the windows of a stream and of its connection. */
static int
take_from_windows(const State *state, const Ready *ready, Py_ssize_t cost)
{
    int failed = set_number(state, ready->stream, WINDOW, ready->window - cost);
    return failed ? failed : set_number(state, ready->turns, WINDOW, ready->shared - cost);
}

/* Those that have got a part stand first: another stream of the same connection must not write before the rest. */
static int
add_pair(PyObject *list, PyObject *link, Py_ssize_t sent)
{
    PyObject *pair = Py_BuildValue("(On)", link, sent);
    if (pair == NULL) {
        return -1;
    }
    int failed = sent > 0 ? PyList_Insert(list, 0, pair) : PyList_Append(list, pair);
    Py_DECREF(pair);
    return failed;
}

/* Look at a few links, then send to those that are ready: what looking needs is in the processor's caches then, which
 * the kernel's work replaces at each call. */
static int
send_to_some(const State *state, PyObject *links, Py_ssize_t begin, int count, const char *data, Py_ssize_t size,
             Py_ssize_t cost, PyObject *rest)
{
    Ready ready[AT_ONCE];
    Py_ssize_t sent[AT_ONCE];
    int looked = 0, failed = 0;
    for (; looked < count && !failed; looked++) {
        ready[looked] = (Ready){0};
        PyObject *link = begin + looked < PyList_Size(links) ? PyList_GetItem(links, begin + looked) : NULL;
        if (link != NULL && size > 0) {
            Py_INCREF(link);
            look(state, link, cost, &ready[looked]);
            Py_DECREF(link);
        }
        failed = PyErr_Occurred() != NULL;
    }
    for (int at = 0; at < looked && !failed; at++) {
        sent[at] = ready[at].outlet == NULL ? 0 : send_one(ready[at].outlet, data, size);
    }
    for (int at = 0; at < looked; at++) {
        if (!failed && sent[at] > 0 && cost != RAW) {
            failed = take_from_windows(state, &ready[at], cost) < 0;
        }
        if (!failed && sent[at] < size) {
            PyObject *link = PyList_GetItem(links, begin + at);
            failed = link == NULL || add_pair(rest, link, sent[at]) < 0;
        }
        clear_ready(&ready[at]);
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
    for (int name = 0; name < NAMES; name++) {
        state->names[name] = PyUnicode_InternFromString(attributes[name]);
        if (state->names[name] == NULL) {
            return -1;
        }
    }
    return 0;
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
    for (int name = 0; name < NAMES; name++) {
        Py_CLEAR(state->names[name]);
    }
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
