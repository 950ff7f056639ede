/* goplug.h: a plugin that is a shared object with one exported function, Execute.
 *
 *     #include <goplug.h>
 *
 *     GOPLUG_PLUGIN
 *     int32_t Execute(goplug_context *context) {
 *         if (strcmp(context->label, "greet") != 0) {
 *             context->fail(context, "there is only greet");
 *             return GOPLUG_FAILED;
 *         }
 *         context->set(context, "greeting", "\"hello\"");
 *         return GOPLUG_DONE;
 *     }
 *
 *     cc -shared -fPIC -o greeter.so greeter.c
 *
 * goplug-host opens the object in a process of its own and calls Execute once for each call: nothing of the host has to be
 * linked, all that a plugin may ask is reached through the context. docs/shared-objects.md says how it is installed and called.
 *
 * Values are JSON texts, each under a key. They are copied both ways: no pointer that a plugin is given or gives is kept,
 * but for `label`, which lives until Execute returns, as the context itself does. Texts are UTF-8 and end with a NUL, which
 * no JSON text holds inside. Every function of the context may be called from any thread until Execute has returned.
 *
 * This file is plain C99 and C++, and needs nothing but <stddef.h> and <stdint.h>.
 */
#ifndef GOPLUG_H
#define GOPLUG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface. A host refuses an object that says another one in `goplug_abi`. */
#define GOPLUG_ABI 1

/* What Execute returns. Any other value is a failure, too. */
#define GOPLUG_DONE 0      /* the reply is the values as they are now */
#define GOPLUG_FAILED 1    /* the caller is told `method_failed`, and what `fail` was given */
#define GOPLUG_PANICKED 2  /* the same as `panicked`: for what catches exceptions and panics at this boundary */

/* What `set` returns. */
#define GOPLUG_SET 0        /* the value is kept; or the key was blank, which is ignored */
#define GOPLUG_INVALID 1    /* the value is no JSON text, or key or value are not UTF-8: nothing has changed */
#define GOPLUG_TOO_LARGE 2  /* the values would be more than 64 MiB, or a key longer than 1,024 bytes: nothing has changed */

/* One call, as the plugin sees it: it writes nothing in it, so the name says const once for all. */
typedef const struct goplug_context_s goplug_context;
struct goplug_context_s {
    /* GOPLUG_ABI of the host. */
    uint32_t abi;

    /* The size of this structure in the host, in bytes. A later host may have more at its end: what lies beyond
     * sizeof(goplug_context) is of no concern, what lies within is there. */
    uint32_t size;

    /* What the caller asked for, one of the labels that the manifest names or any other that the caller wrote; empty when the
     * caller named none. Never NULL. */
    const char *label;

    /* Copies the JSON text of the value of `key` to `buffer`, at most `capacity` bytes with its NUL, and returns its length
     * without the NUL, as snprintf does: what is returned is `capacity` or more when the text was cut off. `null` for a key that
     * is not there, that is blank or that is NULL. `buffer` may be NULL when `capacity` is 0. */
    size_t (*get)(goplug_context *context, const char *key, char *buffer, size_t capacity);

    /* Keeps a copy of `json` as the value of `key`: GOPLUG_SET, GOPLUG_INVALID or GOPLUG_TOO_LARGE. A NULL value is `null`. A blank
     * or NULL key is ignored. */
    int32_t (*set)(goplug_context *context, const char *key, const char *json);

    /* How long the caller still waits, in milliseconds; 0 when the deadline has passed. */
    int64_t (*remaining_ms)(goplug_context *context);

    /* 1 once nobody waits for the reply any more: the caller has gone, the deadline has passed, or the plugin is being stopped. Else
     * waits up to `wait_ms` milliseconds for that, and returns 0 if it did not happen. 0 only looks. Whoever works on although
     * nobody waits keeps the next call waiting, and is ended with its process after `shared_object.grace` of the manifest. */
    int32_t (*cancelled)(goplug_context *context, uint32_t wait_ms);

    /* Says why Execute is going to return something else than GOPLUG_DONE. A copy of the text is kept, at most 4,096 bytes; the last one
     * counts. It changes nothing by itself. */
    void (*fail)(goplug_context *context, const char *message);
};

#if defined(__GNUC__)
#define GOPLUG_EXPORT __attribute__((visibility("default")))
#else
#define GOPLUG_EXPORT
#endif

/* The entry function: to be defined by the plugin. Calls come one at a time, from one thread that stays the same, unless the manifest
 * says `"shared_object": {"concurrent": true}`. */
GOPLUG_EXPORT int32_t Execute(goplug_context *context);

/* Which version of this interface the plugin was built for. Optional: without it the host takes it to be 1. */
extern GOPLUG_EXPORT const uint32_t goplug_abi;

/* Once in a plugin, outside of every function: says what it was built for. */
#define GOPLUG_PLUGIN const uint32_t goplug_abi = GOPLUG_ABI;

#ifdef __cplusplus
}
#endif

#endif
