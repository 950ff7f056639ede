/* A plugin that is a shared object, in C: the labels of src/lib.rs.
 *
 *     cc -shared -fPIC -I ../../shared-object/include -o greeter.so greeter.c
 */
#include <goplug.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

GOPLUG_PLUGIN

static int32_t fail(goplug_context *cx, const char *why) {
    cx->fail(cx, why);
    return GOPLUG_FAILED;
}

/* "name" in, "greeting" out: both are JSON strings, so that the quote at the end makes room for what goes before it. */
static int32_t greet(goplug_context *cx) {
    char name[200], greeting[256];
    if (cx->get(cx, "name", name, sizeof name) >= sizeof name || name[0] != '"') {
        return fail(cx, "value `name`: it must be a short string");
    }
    snprintf(greeting, sizeof greeting, "\"hello %s", name + 1);
    cx->set(cx, "greeting", greeting);
    return GOPLUG_DONE;
}

/* Nobody looks whether "by" is 0: then the process dies, the caller is told so, and the plugin is started again. */
static int32_t divide(goplug_context *cx) {
    char text[32];
    long number, by;
    cx->get(cx, "number", text, sizeof text);
    number = strtol(text, NULL, 10);
    cx->get(cx, "by", text, sizeof text);
    by = strtol(text, NULL, 10);
    snprintf(text, sizeof text, "%ld", number / by);
    cx->set(cx, "quotient", text);
    return GOPLUG_DONE;
}

/* Works until nobody waits any more, and looks now and then. */
static int32_t wait_for_nobody(goplug_context *cx) {
    char text[32];
    unsigned rounds = 0;
    snprintf(text, sizeof text, "%lld", (long long)cx->remaining_ms(cx));
    cx->set(cx, "remaining_ms", text);
    while (!cx->cancelled(cx, 100)) {
        rounds++;
    }
    printf("wait was cancelled after %u rounds\n", rounds);
    fflush(stdout);
    return fail(cx, "nobody waits");
}

int32_t Execute(goplug_context *cx) {
    if (strcmp(cx->label, "greet") == 0) {
        return greet(cx);
    }
    if (strcmp(cx->label, "divide") == 0) {
        return divide(cx);
    }
    if (strcmp(cx->label, "wait") == 0) {
        return wait_for_nobody(cx);
    }
    return fail(cx, "there is no such label");
}
