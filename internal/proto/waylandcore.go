//go:build linux

package proto

// waylandInterface is what of an interface is known: its messages by their opcodes, each
// the name and the types of the arguments as the wire has them: int, uint, fixed,
// string, object, new id of an interface, array, and h for a descriptor.
type waylandInterface struct {
	name             string
	requests, events []string
}

// waylandInterfaces are those by which descriptors pass in the core protocol, in dmabuf
// and in the primary selection, and what leads to them: wayland.xml,
// linux-dmabuf-unstable-v1.xml, primary-selection-unstable-v1.xml. It is no map, as each
// start of fdkit would have to make that.
var waylandInterfaces = []waylandInterface{
	{
		name:     "wl_display",
		requests: []string{"sync n:wl_callback", "get_registry n:wl_registry"},
		events:   []string{"error o u s", "delete_id u"},
	},
	{
		name:     "wl_registry",
		requests: []string{"bind u s u n"},
		events:   []string{"global u s u", "global_remove u"},
	},
	{
		name:   "wl_callback",
		events: []string{"done u"},
	},
	{
		name:     "wl_compositor",
		requests: []string{"create_surface n:wl_surface", "create_region n:wl_region"},
	},
	{
		name:     "wl_shm",
		requests: []string{"create_pool n:wl_shm_pool h i"},
		events:   []string{"format u"},
	},
	{
		name:     "wl_shm_pool",
		requests: []string{"create_buffer n:wl_buffer i i i i u", "destroy", "resize i"},
	},
	{
		name:     "wl_buffer",
		requests: []string{"destroy"},
		events:   []string{"release"},
	},
	{
		name: "wl_surface",
		requests: []string{
			"destroy", "attach o i i", "damage i i i i", "frame n:wl_callback", "set_opaque_region o",
			"set_input_region o", "commit", "set_buffer_transform i", "set_buffer_scale i",
			"damage_buffer i i i i", "offset i i",
		},
		events: []string{"enter o", "leave o"},
	},
	{
		name: "wl_seat",
		requests: []string{
			"get_pointer n:wl_pointer", "get_keyboard n:wl_keyboard", "get_touch n:wl_touch", "release",
		},
		events: []string{"capabilities u", "name s"},
	},
	{
		name:     "wl_keyboard",
		requests: []string{"release"},
		events: []string{
			"keymap u h u", "enter u o a", "leave u o", "key u u u u", "modifiers u u u u u", "repeat_info i i",
		},
	},
	{
		name:     "wl_data_device_manager",
		requests: []string{"create_data_source n:wl_data_source", "get_data_device n:wl_data_device o"},
	},
	{
		name:     "wl_data_device",
		requests: []string{"start_drag o o o u", "set_selection o u", "release"},
		events: []string{
			"data_offer n:wl_data_offer", "enter u o f f o", "leave", "motion u f f", "drop", "selection o",
		},
	},
	{
		name:     "wl_data_source",
		requests: []string{"offer s", "destroy", "set_actions u"},
		events:   []string{"target s", "send s h", "cancelled", "dnd_drop_performed", "dnd_finished", "action u"},
	},
	{
		name:     "wl_data_offer",
		requests: []string{"accept u s", "receive s h", "destroy", "finish", "set_actions u u"},
		events:   []string{"offer s", "source_actions u", "action u"},
	},
	{
		name: "zwp_linux_dmabuf_v1",
		requests: []string{
			"destroy", "create_params n:zwp_linux_buffer_params_v1",
			"get_default_feedback n:zwp_linux_dmabuf_feedback_v1",
			"get_surface_feedback n:zwp_linux_dmabuf_feedback_v1 o",
		},
		events: []string{"format u", "modifier u u u"},
	},
	{
		name:     "zwp_linux_buffer_params_v1",
		requests: []string{"destroy", "add h u u u u u", "create i i u u", "create_immed n:wl_buffer i i u u"},
		events:   []string{"created n:wl_buffer", "failed"},
	},
	{
		name:     "zwp_linux_dmabuf_feedback_v1",
		requests: []string{"destroy"},
		events: []string{
			"done", "format_table h u", "main_device a", "tranche_done", "tranche_target_device a",
			"tranche_formats a", "tranche_flags u",
		},
	},
	{
		name: "zwp_primary_selection_device_manager_v1",
		requests: []string{
			"create_source n:zwp_primary_selection_source_v1", "get_device n:zwp_primary_selection_device_v1 o",
			"destroy",
		},
	},
	{
		name:     "zwp_primary_selection_device_v1",
		requests: []string{"set_selection o u", "destroy"},
		events:   []string{"data_offer n:zwp_primary_selection_offer_v1", "selection o"},
	},
	{
		name:     "zwp_primary_selection_source_v1",
		requests: []string{"offer s", "destroy"},
		events:   []string{"send s h", "cancelled"},
	},
	{
		name:     "zwp_primary_selection_offer_v1",
		requests: []string{"receive s h", "destroy"},
		events:   []string{"offer s"},
	},
}

// waylandInterfaceOf returns what is known of the interface of that name.
func waylandInterfaceOf(name string) (known waylandInterface) {
	for _, i := range waylandInterfaces {
		if i.name == name {
			known = i
		}
	}
	return known
}
