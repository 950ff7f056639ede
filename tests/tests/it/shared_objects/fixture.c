/* A plugin that misbehaves on command. */
#include <goplug.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

GOPLUG_PLUGIN

static int inside, most;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Tells whoever looks that code of this object ran. */
__attribute__((constructor)) static void opened(void) {
    const char *path = getenv("FIXTURE_OPENED");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%d\n", (int)getpid());
        fclose(file);
    }
}

static void number(goplug_context *cx, const char *key, long long value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", value);
    cx->set(cx, key, text);
}

/* Until the stack is full; the compiler must not see that it has no end. */
static int deep(volatile int left) {
    volatile char here[65536];
    here[0] = (char)left;
    return left == 0 ? here[0] : deep(left - 1) + here[0];
}

/* How many are in here at once, and on which thread. */
static void overlap(goplug_context *cx) {
    struct timespec pause = {0, 50 * 1000 * 1000};
    pthread_mutex_lock(&lock);
    if (++inside > most) {
        most = inside;
    }
    pthread_mutex_unlock(&lock);
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&lock);
    inside--;
    number(cx, "most", most);
    pthread_mutex_unlock(&lock);
    number(cx, "thread", (long long)(size_t)pthread_self());
}

int32_t Execute(goplug_context *cx) {
    const char *label = cx->label;
    if (strcmp(label, "pid") == 0) {
        number(cx, "pid", getpid());
    } else if (strcmp(label, "overlap") == 0) {
        overlap(cx);
    } else if (strcmp(label, "values") == 0) {
        char text[64];
        number(cx, "missing", (long long)cx->get(cx, "missing", text, sizeof text));
        cx->set(cx, "was missing", text);
        number(cx, "bad", cx->set(cx, "broken", "{"));
        number(cx, "blank", cx->set(cx, "  ", "1"));
        cx->set(cx, "nil", NULL);
        number(cx, "abi", cx->abi);
        number(cx, "size", cx->size);
    } else if (strcmp(label, "returns") == 0) {
        return 77;
    } else if (strcmp(label, "says") == 0) {
        cx->fail(cx, "first");
        cx->fail(cx, "no room left");
        return GOPLUG_FAILED;
    } else if (strcmp(label, "segfault") == 0) {
        *(volatile int *)8 = 1;
    } else if (strcmp(label, "abort") == 0) {
        abort();
    } else if (strcmp(label, "exit") == 0) {
        exit(3);
    } else if (strcmp(label, "overflow") == 0) {
        number(cx, "deep", deep(1 << 20));
    } else if (strcmp(label, "hang") == 0) {
        for (;;) {
            pause();
        }
    } else {
        cx->fail(cx, "unknown label");
        return GOPLUG_FAILED;
    }
    return GOPLUG_DONE;
}
