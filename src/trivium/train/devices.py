"""Where arrays live: on one device, or on the devices of a mesh."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Devices:
    """The default device, or a mesh over whose first axis batches are spread.

    batch_size must be a multiple of the devices on that axis (else ValueError).
    sharding: of an array [batch, ...] on the mesh, None on one device. replicated: likewise, of an
    array that every device holds.
    """

    def __init__(self, mesh, batch_size):
        self.sharding = self.replicated = None
        self.parts = 1
        if mesh is None:
            return
        if not isinstance(mesh, Mesh):
            raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
        # Models say nothing of devices, so the compiler decides how their arrays are spread.
        mesh = Mesh(mesh.devices, mesh.axis_names)
        axis = mesh.axis_names[0]
        self.parts = mesh.shape[axis]
        if batch_size % self.parts:
            raise ValueError(
                f"batch_size must be a multiple of the {self.parts} devices on the mesh's axis "
                f"{axis!r}, got {batch_size}"
            )
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.sharding = NamedSharding(mesh, PartitionSpec(axis))

    def batch(self, batch_size, count) -> int:
        """The size of batches of `count` examples: no larger than needed, and evenly spread."""
        return -(-min(batch_size, count) // self.parts) * self.parts

    def put(self, tree):
        """A tree of arrays on the device, or on each device of the mesh."""
        if self.replicated is None:
            return jax.tree.map(lambda x: x if isinstance(x, jax.Array) else jnp.array(x), tree)
        return jax.device_put(tree, self.replicated)

    def put_rows(self, rows):
        """Rows [batch] or [steps, batch], spread over the mesh."""
        if self.sharding is None:
            return jnp.array(rows)
        spec = PartitionSpec(*[None] * (rows.ndim - 1), *self.sharding.spec)
        return jax.device_put(rows, NamedSharding(self.sharding.mesh, spec))

    def spread(self, batch):
        """A tree of arrays [batch, ...], spread over the mesh."""
        if self.sharding is None:
            return self.put(batch)
        return jax.device_put(batch, self.sharding)

    def own(self, leaf):
        """A copy that a donating program may consume, in a type that it will keep."""
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return self.put(leaf.copy())
        # Naming the type makes a weakly typed number an ordinary one; the step returns the latter,
        # and would be compiled twice.
        return self.put(jnp.array(leaf, dtype=jnp.asarray(leaf).dtype))

    def restore(self, saved, like):
        """An array of a checkpoint in the form of the one it replaces."""
        if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            saved = jax.random.wrap_key_data(jnp.array(saved), impl=jax.random.key_impl(like))
        return self.own(saved)

    def home(self, leaf, sharding):
        """A trained array back where the model's own was."""
        if self.replicated is None or sharding is None:
            return leaf
        return jax.device_put(leaf.addressable_data(0), sharding)
